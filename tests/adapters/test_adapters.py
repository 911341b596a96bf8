"""Tests of adapters on every model: training, sequences of adapters, plain `peft`, merging and resumption."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.small_recipes import POINTS, small
from helpers.tiny_language_models import GPT2, LLAMA, NEOX, built, worked
from upturn import seeds
from upturn.adapter_layers import injection
from upturn.adapters import _rank_importance, _targets
from upturn.adapters._entry import AtEntry
from upturn.adapters.adalora import Adalora
from upturn.adapters.alora import Alora
from upturn.adapters.dora import Dora
from upturn.adapters.dylora import Dylora
from upturn.adapters.full import Full
from upturn.adapters.loha import Loha
from upturn.adapters.lokr import Lokr
from upturn.adapters.lora import Lora
from upturn.adapters.sora import Sora
from upturn.config import components
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.export import model_export as merging
from upturn.export import run_export as exports
from upturn.loop import loop
from upturn.models.causal_lm import CausalLm, TextSampling
from upturn.models.pixels import Pixels
from upturn.models.points import Points
from upturn.objectives.likelihood import Likelihood
from upturn.store import weights
from upturn.store.checkpoints import tree_hash
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Prompt, Samples, real_samples

pytestmark = pytest.mark.slow

UNET = {"name": "unet", "channels": [8, 16], "groups": 4}
MLP = {"name": "mlp", "width": 24, "depth": 2, "embedding": 16}
KINDS = {
    "lora": Lora(rank=3), "dora": Dora(rank=3), "adalora": Adalora(rank=2), "loha": Loha(rank=3), "lokr": Lokr(rank=2),
    "alora": Alora(rank=2, moves=2, rows=2, share=0.2, warmup=0.3), "dylora": Dylora(rank=3),
    "sora": Sora(rank=3, sparsity=0.3),
}
IN_TURN = [("lora", "adalora", "dora"), ("lora", "loha", "lokr", "dora")]
MOVED = 1e-4  # of a log-prob, that training has changed; what must not change is held to a hundredth of it


def points() -> Samples:
    content = np.random.Generator(np.random.PCG64(1)).normal(size=(24, 2)).astype(np.float32)
    return real_samples("points", content, [Prompt()] * 24, "points")


def pictures() -> Samples:
    content = np.random.Generator(np.random.PCG64(2)).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)
    return real_samples("image", content, [Prompt(label=i % 2) for i in range(6)], "pictures")


def fresh(kind: str) -> Any:
    """An instance without weights."""
    texts = {"llama": LLAMA, "gpt2": GPT2, "neox": NEOX}
    if kind in texts:
        return CausalLm(config=texts[kind])
    return Points(network=MLP) if kind == "mlp" else Pixels(classes=2, network=UNET)


def examples(kind: str) -> Samples:
    return points() if kind == "mlp" else pictures() if kind == "unet" else worked(12)


def perturbed_model(kind: str) -> Any:
    """A model whose weights are not its first: no row of a last layer is zero any more."""
    model = fresh(kind)
    model.build(examples(kind), 1)
    seeds.seed_torch(3)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.module.eval()
    return model


def batch_of(model: Any, kind: str) -> Any:
    batch = model.encode(examples(kind))
    return batch.take(torch.arange(len(batch)))


def log_probs_of(model: Any, kind: str) -> torch.Tensor:
    batch = batch_of(model, kind)
    with torch.no_grad():
        return model.forward(batch, model.draw(batch, 5, 0)).log_probs


def fit(model: Any, kind: str, adapter: Any, steps: int = 6, attach: bool = True, rate: float = 3e-2) -> Iterator[int]:
    """The trainer's calls in their order; yields after each step."""
    if attach:
        adapter.attach(model, steps, 11)
    batch = batch_of(model, kind)
    optimiser = torch.optim.AdamW(list(adapter.parameters(model)), lr=rate)
    model.module.train()

    def mean_loss(count: int) -> float:
        few = batch.take(torch.arange(count))
        with torch.no_grad():
            return -float(model.forward(few, model.draw(few, 0, 0)).log_probs.mean())

    for step in range(steps):
        adapter.before_step(model, step, mean_loss)
        out = model.forward(batch, model.draw(batch, step, 0))
        loss = -out.log_probs.sum() / out.log_probs.numel()
        extra = adapter.regulariser(model)
        (loss if extra is None else loss + extra).backward()
        optimiser.step()
        adapter.after_step(model, step + 1, rate)
        optimiser.zero_grad()
        yield step
    adapter.finish(model)
    model.module.eval()


def trained(model: Any, kind: str, adapter: Any, steps: int = 6) -> Any:
    list(fit(model, kind, adapter, steps))
    return model


def loaded(kind: str, folder: Path) -> Any:
    model = fresh(kind)
    model.load(folder)
    model.module.eval()
    return model


def base_of(model: Any) -> dict[str, torch.Tensor]:
    with injection.plain(model.module):
        return {name: value.clone() for name, value in model.module.state_dict().items()}


def opened(kind: str, folder: Path) -> Any:
    """The base, by the libraries alone."""
    if kind == "unet":
        from diffusers import UNet2DModel

        return UNet2DModel.from_pretrained(folder / "unet")
    if kind == "mlp":
        from upturn.diffusion.networks._diffusers import ResidualMlp

        return ResidualMlp.from_pretrained(folder / "mlp")
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


# --- one stage ------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), [
    (name, kind) for name in KINDS for kind in ("llama", "gpt2", "mlp", "unet")
    if kind != "gpt2" or name not in ("loha", "lokr")  # GPT-2's layers are of a class that those do not fit
])  # fmt: skip
def test_a_stage(name: str, kind: str, tmp_path: Path) -> None:
    """Nothing at first; then it learns, the reference and the base stay, and files and merged weights say the same."""
    model, adapter = perturbed_model(kind), KINDS[name]
    before, base, plain_flops = log_probs_of(model, kind), base_of(model), model.flops(batch_of(model, kind))
    adapter.attach(model, 4, 11)
    torch.testing.assert_close(log_probs_of(model, kind), before, atol=1e-6, rtol=1e-6)
    reference = adapter.reference(model)
    shared = {p.data_ptr() for p in model.module.parameters()}
    assert all(p.data_ptr() in shared for p in reference.module.parameters()), "a second copy in memory"
    for _ in fit(model, kind, adapter, 4, attach=False):
        torch.testing.assert_close(log_probs_of(reference, kind), before, atol=1e-6, rtol=1e-6)
        assert model.module.training, "the reference has put the policy to rest"
    after = log_probs_of(model, kind)
    assert (after - before).abs().max() > MOVED
    assert all(torch.equal(value, base[key]) for key, value in base_of(model).items())
    assert {p.shape for p in adapter.parameters(model)} and all(p.requires_grad for p in adapter.parameters(model))
    trainable = sum(p.numel() for p in adapter.parameters(model))
    assert trainable < sum(v.numel() for v in base.values())
    model._operations = {}
    assert model.flops(batch_of(model, kind)) > plain_flops

    model.save(tmp_path / "model")
    check_in_plain_peft(model, kind, name, tmp_path / "model", after)
    again = loaded(kind, tmp_path / "model")
    assert injection.names(again.module) == [name]
    torch.testing.assert_close(log_probs_of(again, kind), after, atol=1e-5, rtol=1e-5)
    again.save(tmp_path / "again")
    assert tree_hash(tmp_path / "model") == tree_hash(tmp_path / "again")
    adapter.merge(again)
    assert not injection.names(again.module)
    torch.testing.assert_close(log_probs_of(again, kind), after, atol=1e-5, rtol=1e-5)
    again.save(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapters").exists()
    torch.testing.assert_close(log_probs_of(loaded(kind, tmp_path / "merged"), kind), after, atol=1e-5, rtol=1e-5)


def check_in_plain_peft(model: Any, kind: str, name: str, folder: Path, ours: torch.Tensor) -> None:
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(opened(kind, folder), folder / "adapters" / name)
    other = copy.copy(model)
    other.module = theirs.base_model.model.eval()
    torch.testing.assert_close(log_probs_of(other, kind), ours, atol=1e-5, rtol=1e-5)
    config = json.loads((folder / "adapters" / name / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../.." and str(folder) not in json.dumps(config)


def test_the_same_key_gives_the_same_adapter() -> None:
    held = []
    for key in (4, 4, 5):
        model = perturbed_model("llama")
        torch.manual_seed(key * 100 + len(held))
        Lora(rank=2).attach(model, 5, key)
        held.append(torch.cat([p.flatten() for p in injection.tensors(model.module, "lora").values()]))
    assert torch.equal(held[0], held[1]) and not torch.equal(held[0], held[2])


def test_dropout_is_of_the_adapter_in_training_alone() -> None:
    model, adapter = perturbed_model("llama"), Lora(rank=3, dropout=0.5)
    trained(model, "llama", adapter, 4)
    model.module.train()
    seeds.seed_torch(1)
    one, two = log_probs_of(model, "llama"), log_probs_of(model, "llama")
    assert not torch.equal(one, two)
    reference = adapter.reference(model)
    assert torch.equal(log_probs_of(reference, "llama"), log_probs_of(reference, "llama"))
    Dora(rank=2).attach(model, 4, 1)  # the next stage: what came before is at rest
    model.module.train()
    assert torch.equal(log_probs_of(model, "llama"), log_probs_of(model, "llama"))


def test_samples_come_through_the_adapter(tmp_path: Path) -> None:
    model, keys = perturbed_model("llama"), seeds.fold(1, range(6))[:, None]
    settings, prompts = TextSampling(max_tokens=6), list(worked(6).prompts)
    before = model.sample(prompts, keys, settings).content.tolist()
    trained(model, "llama", Lora(rank=4), 10)
    after = model.sample(prompts, keys, settings)
    assert after.content.tolist() != before
    model.save(tmp_path)
    again = loaded("llama", tmp_path)
    assert again.sample(prompts, keys, settings).content.tolist() == after.content.tolist()
    assert again.id != loaded_id("llama", tmp_path / "x", perturbed_model("llama")), "the id is of base and adapter"
    rollout = again.rollout(prompts, keys, settings)
    rows = again.replay(rollout)
    batch = rows.take(torch.arange(len(rows)))
    with torch.no_grad():
        out = again.act(batch)
    torch.testing.assert_close(out.totals(), rollout.state["model_log_probs"].sum(dim=1), atol=1e-3, rtol=1e-4)


def loaded_id(kind: str, folder: Path, model: Any) -> str:
    model.save(folder)
    return str(loaded(kind, folder).id)


# --- several adapters on one base ------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("kind", ["llama", "unet"])
@pytest.mark.parametrize("chain", IN_TURN, ids="-".join)
def test_a_chain_keeps_every_adapter(chain: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    """One after another, each a stage of its own, through files; merged, too."""
    model = perturbed_model(kind)
    base = base_of(model)
    for number, name in enumerate(chain):
        before, adapter = log_probs_of(model, kind), KINDS[name]
        adapter.attach(model, 4, number)
        reference = adapter.reference(model)
        earlier = {
            key: value.clone() for other in injection.names(model.module) if other != name
            for key, value in injection.tensors(model.module, other).items()
        }
        list(fit(model, kind, adapter, 4, attach=False))
        torch.testing.assert_close(log_probs_of(reference, kind), before, atol=2e-6, rtol=2e-6)
        assert (log_probs_of(model, kind) - before).abs().max() > MOVED
        now = {k: v for o in injection.names(model.module) if o != name
               for k, v in injection.tensors(model.module, o).items()}
        assert all(torch.equal(now[key], value) for key, value in earlier.items())
        after = log_probs_of(model, kind)
        model.save(tmp_path / str(number))
        model = loaded(kind, tmp_path / str(number))
        torch.testing.assert_close(log_probs_of(model, kind), after, atol=1e-5, rtol=1e-5)
    assert injection.names(model.module) == list(chain)
    assert json.loads((tmp_path / str(number) / "adapters" / "order.json").read_text()) == list(chain)
    assert all(torch.equal(value, base[key]) for key, value in base_of(model).items())
    injection.merge(model.module)
    torch.testing.assert_close(log_probs_of(model, kind), after, atol=1e-5, rtol=1e-5)


def test_a_chain_in_plain_peft(tmp_path: Path) -> None:
    """Two stages, lora then dora: both files on one base, both on, in the recorded order."""
    from peft import PeftModel

    model = trained(trained(perturbed_model("llama"), "llama", Lora(rank=3)), "llama", Dora(rank=2))
    model.save(tmp_path)
    order = json.loads((tmp_path / "adapters" / "order.json").read_text())
    theirs = PeftModel.from_pretrained(opened("llama", tmp_path), tmp_path / "adapters" / order[0], order[0])
    theirs.load_adapter(tmp_path / "adapters" / order[1], order[1])
    theirs.base_model.set_adapter(order)
    ours = log_probs_of(model, "llama")
    model.module = theirs.base_model.model.eval()
    torch.testing.assert_close(log_probs_of(model, "llama"), ours, atol=1e-5, rtol=1e-5)


def test_merged_opens_in_plain_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = trained(trained(perturbed_model("llama"), "llama", Dora(rank=3)), "llama", Adalora(rank=2))
    ours = log_probs_of(model, "llama")
    Lora().merge(model)
    model.save(tmp_path)
    model.module = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(log_probs_of(model, "llama"), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", list(KINDS))
def test_a_stage_resumes_with_an_adapter(name: str, tmp_path: Path) -> None:
    """The reference is the adapter as it was; another adapter lies around it, so that order matters."""
    adapter = KINDS[name]
    model = trained(perturbed_model("llama"), "llama", adapter, 8)
    other = Adalora(rank=2, adapter_name="other") if name != "adalora" else Dora(rank=2)
    trained(model, "llama", other)
    model.save(tmp_path / "entry")
    model = loaded("llama", tmp_path / "entry")
    before = log_probs_of(model, "llama")
    adapter.attach(model, 6, 3)
    reference = adapter.reference(model)
    for _ in fit(model, "llama", adapter, attach=False):
        torch.testing.assert_close(log_probs_of(reference, "llama"), before, atol=1e-6, rtol=1e-6)
    after = log_probs_of(model, "llama")
    assert (after - before).abs().max() > 1e-3 and len(injection.names(model.module)) == 2
    model.save(tmp_path / "next")
    assert sorted(p.name for p in (tmp_path / "next" / "adapters").iterdir() if p.is_dir()) == \
        sorted([name, other.adapter_name])
    torch.testing.assert_close(log_probs_of(loaded("llama", tmp_path / "next"), "llama"), after, atol=1e-5, rtol=1e-5)


def test_an_adapter_of_the_same_name_must_be_the_same() -> None:
    model = trained(perturbed_model("llama"), "llama", Lora(rank=3), 1)
    with pytest.raises(UserError, match=r"'lora' whose r is 3, and this stage requests 4"):
        Lora(rank=4).attach(model, 1, 1)
    with pytest.raises(UserError, match="use_dora"):
        Dora(rank=3, adapter_name="lora").attach(model, 1, 1)
    with pytest.raises(UserError, match=r"requests otherwise"):
        Lora(rank=3, modules=["q_proj"]).attach(model, 1, 1)
    Lora(rank=4, adapter_name="second").attach(model, 1, 1)
    assert injection.names(model.module) == ["lora", "second"]


def test_full_training_keeps_adapters_apart(tmp_path: Path) -> None:
    model = trained(perturbed_model("llama"), "llama", Lora(rank=3))
    base = base_of(model)
    adapter = Full()
    adapter.attach(model, 4, 1)
    reference, before = adapter.reference(model), log_probs_of(model, "llama")
    list(fit(model, "llama", adapter, 4, attach=False))
    assert any(not torch.equal(value, base[key]) for key, value in base_of(model).items())
    torch.testing.assert_close(log_probs_of(reference, "llama"), before)
    model.save(tmp_path)
    assert injection.names(loaded("llama", tmp_path).module) == ["lora"]
    found = log_probs_of(loaded("llama", tmp_path), "llama")
    torch.testing.assert_close(found, log_probs_of(model, "llama"), atol=1e-6, rtol=1e-6)


# --- AdaLoRA ---------------------------------------------------------------------------------------------------------


def ranks(folder: Path) -> dict[str, int]:
    found = load_file(folder / "adapters" / "adalora" / "adapter_model.safetensors")
    return {key: len(value) for key, value in found.items() if key.endswith("lora_E")}


@pytest.mark.parametrize("kind", ["llama", "mlp"])
def test_adalora_allocates_rank_to_important_layers(kind: str, tmp_path: Path) -> None:
    """Ranks differ at the end, and add up to the budget exactly; the pattern is in the file that `peft` reads."""
    model, adapter = perturbed_model(kind), Adalora(rank=2, initial_rank=4, warmup=0.1, settle=0.3)
    totals = []
    for _ in fit(model, kind, adapter, 30):
        layers = [layer for _, layer in _rank_importance.ranked(model.module, "adalora")]
        totals.append(sum(int(layer.importance.kept.sum()) for layer in layers))
        pruned = [layer.lora_E["adalora"][~layer.importance.kept] for layer in layers]
        assert all(bool((value == 0).all()) for value in pruned)
    assert totals[0] == 4 * len(layers) and totals[-1] == 2 * len(layers)
    assert totals == sorted(totals, reverse=True) and len(set(totals)) > 5
    assert len(set(totals[21:])) == 1  # settled from step 21 on
    model.save(tmp_path)
    found = ranks(tmp_path)
    assert sum(found.values()) == 2 * len(layers) and len(set(found.values())) > 1
    pattern = json.loads((tmp_path / "adapters" / "adalora" / "adapter_config.json").read_text())["rank_pattern"]
    assert {f"base_model.model.{key}": sum(kept) for key, kept in pattern.items()} == found
    assert all(len(kept) == 4 for kept in pattern.values())


def test_adalora_agrees_with_peft_on_the_same_gradients() -> None:
    """The same weights and gradients through `peft`'s allocator: the same ranks stay after every step."""
    from peft.tuners.adalora.layer import RankAllocator

    model, adapter = perturbed_model("llama"), Adalora(rank=2, initial_rank=4, warmup=0.1, settle=0.2)
    adapter.attach(model, 20, 1)
    config = model.module.peft_config["adalora"]
    theirs = RankAllocator(model.module, config, "adalora")
    layers = [layer for _, layer in _rank_importance.ranked(model.module, "adalora")]
    own = list(injection.tensors(model.module, "adalora").values())
    draw = torch.Generator().manual_seed(4)
    for step in range(1, 16):
        values = [torch.randn(p.shape, generator=draw) for p in own]
        for parameter, value in zip(own, values, strict=True):
            parameter.data.copy_(value)
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        _, pattern = theirs.update_and_allocate(model.module, step)
        for parameter, value in zip(own, values, strict=True):
            parameter.data.copy_(value)  # what theirs has masked
        adapter.after_step(model, step, 1e-3)
        if pattern is not None:
            ours = [layer.importance.kept.tolist() for layer in layers]
            ranked = _rank_importance.ranked(model.module, "adalora")
            assert ours == [pattern[f"{path}.lora_E.adalora"] for path, _ in ranked]
    assert sum(map(sum, ours)) == _rank_importance.budget(15, 2, 16, 4 * len(layers), 2 * len(layers)) < 4 * len(layers)


def test_budget_is_a_cubic_between_its_ends() -> None:
    assert [_rank_importance.budget(step, 10, 60, 120, 80) for step in (1, 10, 60, 61, 99)] == [120, 120, 80, 80, 80]
    assert _rank_importance.budget(35, 10, 60, 120, 80) == 80 + 40 // 8


def test_equal_ranks_never_lose_more_than_the_budget() -> None:
    model, adapter = perturbed_model("llama"), Adalora(rank=2, warmup=0.0, settle=0.0)
    adapter.attach(model, 1, 1)
    for parameter in adapter.parameters(model):
        parameter.grad = torch.zeros_like(parameter)
    adapter.after_step(model, 1, 1e-3)
    layers = [layer for _, layer in _rank_importance.ranked(model.module, "adalora")]
    assert sum(int(layer.importance.kept.sum()) for layer in layers) == 2 * len(layers)


def test_orthogonality_acts() -> None:
    """The penalty is the formula, and training on it alone brings P and Q to orthogonality."""
    model, adapter = perturbed_model("llama"), Adalora(rank=2, orthogonality=0.7)
    adapter.attach(model, 400, 1)
    layers = [layer for _, layer in _rank_importance.ranked(model.module, "adalora")]
    expected = []
    for layer in layers:
        a, b = (getattr(layer, part)["adalora"].detach().double().numpy() for part in ("lora_A", "lora_B"))
        expected += [np.linalg.norm(a @ a.T - np.eye(3)), np.linalg.norm(b.T @ b - np.eye(3))]
    found = adapter.regulariser(model)
    assert found is not None and float(found.detach()) == pytest.approx(0.7 * np.mean(expected), rel=1e-5)
    optimiser = torch.optim.Adam(list(adapter.parameters(model)), lr=3e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = adapter.regulariser(model)
        assert loss is not None
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.2 * float(found.detach())
    assert Adalora(rank=2, orthogonality=0.0).regulariser(model) is None and Lora().regulariser(model) is None


def test_adalora_refuses_gradients_that_were_cleared_too_early() -> None:
    model, adapter = perturbed_model("llama"), Adalora(rank=2)
    adapter.attach(model, 5, 1)
    with pytest.raises(ValueError, match="before they are cleared"):
        adapter.after_step(model, 1, 1e-3)


def test_a_pruned_adapter_keeps_its_ranks(tmp_path: Path) -> None:
    adapter = Adalora(rank=2, initial_rank=4)
    trained(perturbed_model("llama"), "llama", adapter, 20).save(tmp_path / "a")
    model = loaded("llama", tmp_path / "a")
    trained(model, "llama", adapter, 20).save(tmp_path / "b")
    assert ranks(tmp_path / "a") == ranks(tmp_path / "b")
    assert tree_hash(tmp_path / "a") != tree_hash(tmp_path / "b")


# --- stopped and resumed ---------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@contextmanager
def stopping(at: int | None) -> Iterator[Any]:
    def on_step(step: int, total: int, loss: float) -> None:
        if step == at:
            raise Stopped

    if at is None:
        yield on_step
    else:
        with pytest.raises(Stopped):
            yield on_step


def run_stage(adapter: Any, entry: Path, progress: Path | None, stop: int | None = None, **fields: Any) -> Any:
    model = loaded("llama", entry)
    spec = Training(steps=12, batch_size=4, learning_rate=1e-2, save_every=2, ema=0.5, **fields)
    batch = model.encode(worked(12))
    batch = batch.with_given(weights=torch.ones(len(batch)))
    with stopping(stop) as on_step:
        trainer.train(model, TrainingSetup(
            spec=spec, objective=Likelihood(), adapter=adapter, feed=FixedFeed(batch, 4, 7), key=7, where="test",
            progress=progress, on_step=on_step,
        ))
    return model


@pytest.mark.long
@pytest.mark.parametrize("adapter", [
    Lora(rank=3, dropout=0.1), Adalora(rank=2, initial_rank=4, warmup=0.1, settle=0.2),
    Lora(rank=3, adapter_name="earlier"), Lokr(rank=2), Alora(rank=2, moves=3, rows=2, share=0.2, warmup=0.3),
    Dylora(rank=4), Sora(rank=4),
], ids=["lora", "adalora", "continued", "lokr", "alora", "dylora", "sora"])  # fmt: skip
def test_pain_3_a_resumed_stage_ends_in_the_same_bytes(adapter: Any, tmp_path: Path) -> None:
    """Through the trainer, its optimiser, average and saved states; killed in the middle, and again."""
    trained(perturbed_model("llama"), "llama", Lora(rank=3, adapter_name="earlier")).save(tmp_path / "entry")
    run_stage(adapter, tmp_path / "entry", None).save(tmp_path / "straight")
    for stop in (5, 8):
        run_stage(adapter, tmp_path / "entry", tmp_path / "progress", stop)
    run_stage(adapter, tmp_path / "entry", tmp_path / "progress").save(tmp_path / "resumed")
    assert tree_hash(tmp_path / "straight") == tree_hash(tmp_path / "resumed") != tree_hash(tmp_path / "entry")
    if isinstance(adapter, Adalora):
        assert len(set(ranks(tmp_path / "straight").values())) > 1


@pytest.mark.parametrize("adapter", [Lora(rank=3), Full()], ids=["lora", "full"])
def test_a_resume_state_holds_no_frozen_tensor_and_a_tied_one_once(adapter: Any, tmp_path: Path) -> None:
    """By the bytes: weights, two moments and the average of what is trained, and no more."""
    model = CausalLm(config={**LLAMA, "tie_word_embeddings": True})
    model.build(worked(12), 1)
    model.save(tmp_path / "entry")
    run_stage(adapter, tmp_path / "entry", None).save(tmp_path / "straight")
    run_stage(adapter, tmp_path / "entry", tmp_path / "progress", 5)
    path = next(tmp_path.glob("progress/step-*/weights.safetensors"))
    state = load_file(path)
    adapter.attach(model, 12, 11)
    trainable = sum(p.numel() for p in adapter.parameters(model))
    numbers = sum(value.numel() for value in state.values() if value.ndim)
    assert numbers == 4 * trainable
    run_stage(adapter, tmp_path / "entry", tmp_path / "progress").save(tmp_path / "resumed")
    assert tree_hash(tmp_path / "straight") == tree_hash(tmp_path / "resumed")


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "file"), [
    ("llama", "model.safetensors"), ("gpt2", "model.safetensors"), ("neox", "model.safetensors"),
    ("unet", "unet/diffusion_pytorch_model.safetensors"), ("mlp", "mlp/diffusion_pytorch_model.safetensors"),
])  # fmt: skip
def test_an_unchanged_base_costs_no_disk(kind: str, file: str, tmp_path: Path) -> None:
    perturbed_model(kind).save(tmp_path / "base")
    model = trained(loaded(kind, tmp_path / "base"), kind, Lora(rank=2), 2)
    model.save(tmp_path / "next")
    assert (tmp_path / "next" / file).samefile(tmp_path / "base" / file)
    kept = (tmp_path / "base" / file).read_bytes()
    changed = trained(loaded(kind, tmp_path / "next"), kind, Full(), 2)
    changed.save(tmp_path / "next")  # over the link
    assert not (tmp_path / "next" / file).samefile(tmp_path / "base" / file)
    assert (tmp_path / "base" / file).read_bytes() == kept
    found = log_probs_of(loaded(kind, tmp_path / "next"), kind)
    torch.testing.assert_close(found, log_probs_of(changed, kind), atol=1e-6, rtol=1e-6)


def test_a_file_is_linked_only_if_it_holds_the_same(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    a, b = torch.arange(6.0).reshape(2, 3), torch.ones(2)
    source = tmp_path / "source"
    save_file({"a": a, "b": b}, source)
    target = tmp_path / "target"
    assert weights.linked(source, target, {"a": a.clone(), "b": b, "tied": b})
    assert target.samefile(source)
    assert weights.linked(source, target, {"a": a, "renamed": b})
    changed = a.clone()
    changed[1, 2] += 1e-6
    for other in ({"a": changed, "b": b}, {"a": a}, {"a": a, "b": b, "more": torch.ones(1)}, {"a": a.double(), "b": b},
                  {"a": a.T.contiguous(), "b": b}):
        assert not weights.linked(source, target, other) and not target.exists()
    assert not weights.linked(None, target, {"a": a}) and not weights.linked(tmp_path / "none", target, {"a": a})


def test_pain_8_a_value_head_is_trained_and_kept(tmp_path: Path) -> None:
    model = built(LLAMA)
    model.add_value_head(1)
    adapter = Lora(rank=2)
    adapter.attach(model, 3, 1)
    assert "value_head" not in json.dumps(_targets.targets(model.module, "all-linear", adapter.kinds()))
    batch = batch_of(model, "llama")
    optimiser = torch.optim.AdamW(list(adapter.parameters(model)), lr=1e-2)
    for _ in range(3):
        out = model.forward(batch, None)
        assert out.values is not None
        ((out.values - 1) ** 2).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    values = model.forward(batch, None).values
    assert values is not None and values.abs().max() > 0
    model.save(tmp_path)
    assert not any("value_head" in key for key in load_file(tmp_path / "model.safetensors"))
    again = loaded("llama", tmp_path)
    torch.testing.assert_close(again.forward(batch, None).values, values)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").samefile(tmp_path / "model.safetensors")
    Full().merge(again)
    torch.testing.assert_close(again.forward(batch, None).values, values, atol=1e-5, rtol=1e-5)


def test_pain_8_the_head_of_a_reward_model_is_trained_whole(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    fields = {key: value for key, value in LLAMA.items() if key != "model_type"}
    config = AutoConfig.for_model("llama", **fields, vocab_size=20, num_labels=1, pad_token_id=0)
    model = perturbed_model("llama")
    model.module = AutoModelForSequenceClassification.from_config(config)
    adapter, before = Lora(rank=2), model.module.score.weight.clone()
    assert not any("score" in path for path in _targets.targets(model.module, "all-linear", adapter.kinds()))
    adapter.attach(model, 1, 1)
    assert {id(model.module.score.weight)} <= {id(p) for p in adapter.parameters(model)}
    tokens = torch.arange(1, 9).reshape(2, 4)
    model.module(input_ids=tokens).logits.sum().backward()
    torch.optim.SGD(list(adapter.parameters(model)), lr=0.1).step()
    assert not torch.equal(model.module.score.weight, before)
    model.save(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again.score.weight, model.module.score.weight)


def test_pain_13_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = trained(perturbed_model("llama"), "llama", Lora(rank=2), 2)
    model.save(tmp_path)
    at = tmp_path / "adapters" / "lora"
    good = (at / "adapter_model.safetensors").read_bytes()

    def rewritten(change: Any) -> None:
        from safetensors.torch import save_file

        (at / "adapter_model.safetensors").write_bytes(good)
        save_file(change(load_file(at / "adapter_model.safetensors")), at / "adapter_model.safetensors")

    rewritten(lambda t: {key.replace("layers.0.", "layers.7."): value for key, value in t.items()})
    with pytest.raises(UserError, match=r"layers\.\d.* (is missing|belongs to no layer)"):
        loaded("llama", tmp_path)
    rewritten(lambda t: dict(list(t.items())[1:]))
    with pytest.raises(UserError, match="is missing"):
        loaded("llama", tmp_path)
    rewritten(lambda t: {key: value[:1] for key, value in t.items()})
    with pytest.raises(UserError, match="do not fit"):
        loaded("llama", tmp_path)
    (at / "adapter_model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors"):
        loaded("llama", tmp_path)
    (at / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="no such file"):
        loaded("llama", tmp_path)
    (at / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        loaded("llama", tmp_path)
    (tmp_path / "adapters" / "order.json").write_text('["another"]')
    with pytest.raises(UserError, match=r"order\.json"):
        loaded("llama", tmp_path)


# --- which layers ----------------------------------------------------------------------------------------------------


def test_layers_are_named_in_three_ways() -> None:
    module, kinds = perturbed_model("llama").module, Lora().kinds()
    every = _targets.targets(module, "all-linear", kinds)
    assert len(every) == 2 * 7 and "lm_head" not in every
    assert _targets.targets(module, ["q_proj", "mlp.up_proj"], kinds) == [
        path for path in every if path.endswith(("q_proj", "mlp.up_proj"))
    ]
    assert _targets.targets(module, r"model\.layers\.1\.mlp\..*_proj", kinds) == [
        path for path in every if path.startswith("model.layers.1.mlp")
    ]
    unet = perturbed_model("unet").module
    found = _targets.targets(unet, "all-linear", kinds)
    shapes = {type(unet.get_submodule(path)).__name__ for path in found}
    assert shapes == {"Linear", "Conv2d"} and {"conv_in", "conv_out"} <= set(found)
    mlp = _targets.targets(perturbed_model("mlp").module, "all-linear", kinds)
    assert {"wide.0", "wide.1", "back.0", "first", "last", "shifts", "noise_in"} == set(mlp) - {"back.1"}


@pytest.mark.parametrize(("wanted", "complaint"), [
    (["q_pro"], "Did you mean 'q_proj'"), (["input_layernorm"], "is a LlamaRMSNorm"), ("nothing.*", "is matched by"),
    ("(", "no regular expression"), (["embed_tokens"], "is a Embedding"),
])  # fmt: skip
def test_layers_that_do_not_fit_are_named(wanted: Any, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint.replace("(", r"\(")):
        Lora(modules=wanted).attach(perturbed_model("llama"), 1, 1)


def test_a_tied_output_is_refused() -> None:
    model = built({**LLAMA, "tie_word_embeddings": True})
    with pytest.raises(UserError, match="shares its weight"):
        Lora(rank=2, modules=["lm_head"]).attach(model, 1, 1)
    Lora(rank=2, modules=["lm_head"]).attach(perturbed_model("llama"), 1, 1)


@pytest.mark.parametrize("part", ["layers.0.self_attn.q_proj", r"layers\.1\.mlp\.(up|down)_proj", "first"])
def test_peft_gets_exactly_these_layers(part: str, tmp_path: Path) -> None:
    """Also where the end of a path is that of others too."""
    kind = "mlp" if part == "first" else "llama"
    model = perturbed_model(kind)
    wanted = [part] if "\\" not in part else f"model.{part}"
    paths = _targets.targets(model.module, wanted, Lora().kinds())
    Lora(rank=2, modules=wanted).attach(model, 1, 1)
    assert [path for path, _ in injection.layers(model.module)] == paths
    model.save(tmp_path)
    assert [path for path, _ in injection.layers(loaded(kind, tmp_path).module)] == paths


def test_narrow_layers_have_no_decomposition_of_a_higher_rank() -> None:
    model = perturbed_model("mlp")
    found = _targets.targets(model.module, "all-linear", Adalora().kinds(), 4)
    assert "last" not in found and "first" in found  # 24 to 2 dimensions, 14 to 24
    with pytest.raises(UserError, match="smaller than the rank"):
        Adalora(rank=4, modules=["last"]).attach(model, 5, 1)
    with pytest.raises(UserError, match="Lower the rank"):
        Adalora(rank=100).attach(model, 5, 1)


def test_dora_refuses_what_it_cannot_do() -> None:
    model = fresh("mlp")
    model.build(points(), 1)
    with pytest.raises(UserError, match="is zero, and DoRA divides by its norm"):
        Dora(rank=2).attach(model, 1, 1)
    model = trained(perturbed_model("llama"), "llama", Lora(rank=2), 1)
    with pytest.raises(UserError, match="has an adapter already"):
        Dora(rank=2, dropout=0.1).attach(model, 1, 1)


@pytest.mark.parametrize(("kind", "fields", "complaint"), [
    ("lora", {"rank": 0}, "at least 1"), ("dora", {"dropout": 1.0}, "below 1"), ("lora", {"modules": []}, "no layer"),
    ("lora", {"adapter_name": "a.b"}, "cannot be called"), ("lora", {"adapter_name": "train"}, "cannot be called"),
    ("adalora", {"initial_rank": 4}, "at least rank"), ("adalora", {"warmup": 0.8, "settle": 0.3}, "below 1"),
    ("adalora", {"orthogonality": -1.0}, "not be below 0"), ("loha", {"dropout": 0.1}, "no dropout"),
    ("sora", {"sparsity": -1.0}, "not be below 0"), ("alora", {"most": 4}, "at least rank"),
    ("alora", {"share": 0.0}, "above 0"), ("alora", {"warmup": 0.8}, "below 1"), ("dylora", {"rank": 0}, "at least 1"),
    ("lokr", {"factor": 0}, "at least 1"), ("lora", {"ranks": 3}, "Did you mean 'rank'"),
])  # fmt: skip
def test_fields_are_checked_when_a_recipe_is_read(kind: str, fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError) as raised:
        components.make("adapter", {"name": kind, **fields}, "adapter")
    assert complaint in str(raised.value)
    assert isinstance(components.make("adapter", kind), LowRankOf[kind])


LowRankOf = {
    "lora": Lora, "dora": Dora, "adalora": Adalora, "loha": Loha, "lokr": Lokr, "alora": Alora, "dylora": Dylora,
    "sora": Sora,
}


def test_a_model_without_files_for_adapters_is_refused() -> None:
    from upturn.models.classifier import Classifier

    model = Classifier()
    model.build(pictures(), 1)
    with pytest.raises(UserError, match="does not support adapters"):
        Lora().attach(model, 1, 1)


# --- within the rest -------------------------------------------------------------------------------------------------


def test_wrapped_modules_are_seen_through() -> None:
    """As accelerate, DDP and compilation wrap them."""
    model = trained(perturbed_model("llama"), "llama", Adalora(rank=2), 3)
    bare = model.module
    model.module = torch.nn.DataParallel(bare)
    assert injection.inner(model.module) is bare and model._bare is bare
    assert Adalora(rank=2).regulariser(model) is not None
    assert AtEntry(bare, [], []).train().training is False


def test_the_mlp_is_the_same_function_without_its_fused_sums() -> None:
    model = perturbed_model("mlp")
    fused = log_probs_of(model, "mlp")

    class Other(torch.nn.Linear):
        pass

    for layer in (*model.module.wide, *model.module.back):
        layer.__class__ = Other
    torch.testing.assert_close(log_probs_of(model, "mlp"), fused, atol=1e-6, rtol=1e-6)


LORA_POINTS = POINTS.replace("train: {steps: 20,", "train: {adapter: {name: lora, rank: 4}, steps: 20,")


def test_rounds_continue_an_adapter_and_export_it_merged(tmp_path: Path) -> None:
    assert LORA_POINTS != POINTS
    run = loop.run(small(LORA_POINTS), tmp_path)
    folders = [run.model_folder(unit) for unit in ("rounds/000", "rounds/001", "rounds/002")]
    file = "mlp/diffusion_pytorch_model.safetensors"
    assert all((folder / file).samefile(folders[0] / file) for folder in folders)
    assert [(folder / "adapters").is_dir() for folder in folders] == [False, True, True]
    merging.write(run, "rounds/002", tmp_path / "merged")
    first = Points(network={"name": "mlp", "width": 16, "depth": 1})
    first.load(folders[2])
    batch = first.encode(points())
    second = replace(first)
    second.load(tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapters").exists()
    with torch.no_grad():
        ours, theirs = (m.forward(batch, m.draw(batch, 1, 0)).log_probs for m in (first, second))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert math.isfinite(float(ours.sum()))
    merging.write(run, "rounds/000", tmp_path / "copied")
    assert tree_hash(tmp_path / "copied") == tree_hash(folders[0])
    done = exports.export(run, "adapters", tmp_path / "alone", partial(merging.write_adapters, form="peft"))
    unit = run.incumbent()
    assert tree_hash(done.folder / "adapters" / "adapters") == tree_hash(run.model_folder(unit) / "adapters")
    with pytest.raises(UserError, match="for text-to-image models"):
        merging.write_adapters(run, "rounds/001", tmp_path / "none", "kohya")
    with pytest.raises(UserError, match="has no adapters"):
        merging.write_adapters(run, "rounds/000", tmp_path / "none", "peft")

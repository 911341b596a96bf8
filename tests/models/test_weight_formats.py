"""Tests of data types, gradient checkpointing, attention and 4-bit weights of text models."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny_language_models import GPT2, LLAMA, built, worked
from upturn.adapter_layers import injection
from upturn.adapters.adalora import Adalora
from upturn.adapters.dora import Dora
from upturn.adapters.full import Full
from upturn.adapters.loha import Loha
from upturn.adapters.lokr import Lokr
from upturn.adapters.lora import Lora
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.models.causal_lm import CausalLm
from upturn.models.reward_text import RewardText
from upturn.models.text_classifier import TextClassifier
from upturn.objectives.likelihood import Likelihood
from upturn.store.files import tree_hash
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Prompt, real_samples

pytestmark = pytest.mark.slow

TIED = {**LLAMA, "tie_word_embeddings": True}
BITS = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


def batch_of(model: Any) -> Any:
    batch = model.encode(worked(8))
    return batch.take(torch.arange(len(batch)))


def loss_of(model: Any) -> torch.Tensor:
    out = model.forward(batch_of(model), None)
    return -(out.log_probs * out.mask).sum() / out.mask.sum()


def fit(model: Any, adapter: Any, steps: int = 4, progress: Path | None = None, **fields: Any) -> list[float]:
    batch = model.encode(worked(12))
    batch = batch.with_given(weights=torch.ones(len(batch)))
    spec = Training(steps=steps, batch_size=6, **{"learning_rate": 1e-2, **fields})
    plan = TrainingSetup(
        spec=spec, objective=Likelihood(), adapter=adapter, feed=FixedFeed(batch, 6, 7), key=7, where="test",
        progress=progress,
    )
    return [point["loss"] for point in trainer.train(model, plan).points]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("base") / "model"
    built(TIED).save(found)
    return found


def started(kind: type, folder: Path, **fields: Any) -> Any:
    model = kind(folder=str(folder), **fields)
    samples = worked()
    if kind is TextClassifier:
        prompts = [Prompt(label=i % 2) for i in range(len(samples))]
        samples = real_samples("text", [str(c) for c in samples.content], prompts, "labelled")
    model.build(samples, 1)
    return model


@pytest.mark.parametrize("kind", [CausalLm, RewardText, TextClassifier])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_read_and_saved_in_the_type_that_is_stated(
    kind: type, dtype: str, folder: Path, tmp_path: Path
) -> None:
    model = started(kind, folder, dtype=dtype)
    wanted = getattr(torch, dtype)
    assert {p.dtype for p in model.module.parameters()} == {wanted}
    model.save(tmp_path / "one")
    stored = {v.dtype for file in (tmp_path / "one").glob("*.safetensors") for v in load_file(file).values()}
    assert stored == {wanted} and json.loads((tmp_path / "one/config.json").read_text())["dtype"] == dtype
    again = kind(folder="gone", dtype=dtype)
    again.load(tmp_path / "one")
    again.save(tmp_path / "two")
    assert tree_hash(tmp_path / "one") == tree_hash(tmp_path / "two")


@pytest.mark.parametrize("config", [TIED, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("adapter", [Lora(rank=3), Dora(rank=3), Adalora(rank=2), Loha(rank=3), Lokr(rank=2)],
                         ids=["lora", "dora", "adalora", "loha", "lokr"])  # fmt: skip
def test_adapters_are_float32_on_a_base_of_fewer_bits(adapter: Any, config: Any, tmp_path: Path) -> None:
    """Their gradients are those of the same model in float32, within the rounding of the base."""
    if config is GPT2 and isinstance(adapter, Loha | Lokr):
        pytest.skip("peft has none for GPT-2's layers")
    built(config).save(tmp_path / "base")
    losses, grads = {}, {}
    for dtype in ("float32", "bfloat16"):
        model = started(CausalLm, tmp_path / "base", dtype=dtype)
        adapter.attach(model, 4, 3)
        own = injection.tensors(model.module, adapter.adapter_name)
        assert {p.dtype for p in own.values()} == {torch.float32}
        model.module.train()
        loss = loss_of(model)
        loss.backward()
        losses[dtype] = loss.item()
        grads[dtype] = torch.cat([p.grad.reshape(-1) for p in own.values() if p.grad is not None])
        if dtype == "bfloat16":
            base = {n: p.dtype for n, p in model.module.named_parameters() if not p.requires_grad and "lora" not in n
                    and "hada" not in n and "lokr" not in n}
            assert set(base.values()) == {torch.bfloat16}
            model.save(tmp_path / "saved")
            again = CausalLm(folder="gone", dtype=dtype)
            again.load(tmp_path / "saved")
            again.module.train()
            torch.testing.assert_close(loss_of(again), loss.detach())
            again.save(tmp_path / "again")
            assert tree_hash(tmp_path / "saved") == tree_hash(tmp_path / "again")
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.02)
    cosine = torch.nn.functional.cosine_similarity(grads["bfloat16"], grads["float32"], dim=0)
    assert cosine > 0.98


def test_a_small_step_of_full_training_is_not_lost_in_16_bits(folder: Path) -> None:
    """Sixty steps of 2e-5 move a weight of 0.02 by up to 1e-3; in bfloat16 alone each of them is rounded away."""
    spec = {"steps": 60, "learning_rate": 2e-5, "schedule": "constant", "warmup": 0.0}
    wide, narrow = (started(CausalLm, folder, dtype=dtype) for dtype in ("float32", "bfloat16"))
    before = {n: p.detach().float().clone() for n, p in narrow.module.named_parameters()}
    fit(wide, Full(), **spec)
    fit(narrow, Full(), **spec)
    assert {p.dtype for p in narrow.module.parameters()} == {torch.bfloat16}
    moved, expected = [], []
    for (name, ours), theirs in zip(narrow.module.named_parameters(), wide.module.parameters(), strict=True):
        moved.append((ours.detach().float() - before[name]).reshape(-1))
        expected.append((theirs.detach() - before[name]).reshape(-1))
    cosine = torch.nn.functional.cosine_similarity(torch.cat(moved), torch.cat(expected), dim=0)
    assert cosine > 0.9


def test_full_training_in_16_bits_resumes_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    straight, resumed = (started(CausalLm, folder, dtype="bfloat16") for _ in range(2))
    fit(straight, Full(), 8, ema=0.5)
    spec = {"save_every": 2, "ema": 0.5}
    stopped = started(CausalLm, folder, dtype="bfloat16")

    class Stopped(Exception):
        pass

    def stop(step: int, total: int, loss: float) -> None:
        if step == 5:
            raise Stopped

    batch = stopped.encode(worked(12)).with_given(weights=torch.ones(12))
    setup = TrainingSetup(
        spec=Training(steps=8, batch_size=6, learning_rate=1e-2, **spec), objective=Likelihood(), adapter=Full(),
        feed=FixedFeed(batch, 6, 7), key=7, where="test", progress=tmp_path / "progress", on_step=stop,
    )
    with pytest.raises(Stopped):
        trainer.train(stopped, setup)
    fit(resumed, Full(), 8, tmp_path / "progress", **spec)
    for name, model in (("a", straight), ("b", resumed)):
        model.save(tmp_path / name)
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")


def test_a_reward_model_is_trained_in_16_bits(folder: Path) -> None:
    model = started(RewardText, folder, dtype="bfloat16")
    Lora(rank=2).attach(model, 3, 5)
    head = model.module.score.weight
    head.data = head.data.float()
    out = model.forward(batch_of(model), None)
    out.rewards.sum().backward()
    assert head.grad is not None and out.rewards.dtype == torch.float32 and torch.isfinite(out.rewards).all()


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=3, dropout=0.2)], ids=["full", "lora"])
def test_gradient_checkpointing_changes_no_loss(adapter: Any, folder: Path) -> None:
    plain, checkpointed = (started(CausalLm, folder, gradient_checkpointing=on) for on in (False, True))
    calls: list[str] = []
    for name, model in {"plain": plain, "checkpointed": checkpointed}.items():
        model.module.model.layers[0].mlp.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    assert fit(plain, adapter) == pytest.approx(fit(checkpointed, adapter), abs=1e-5)
    for ours, theirs in zip(plain.module.parameters(), checkpointed.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert calls.count("checkpointed") == 2 * calls.count("plain") == 8  # computed again in the backward pass
    checkpointed.module.eval()
    loss_of(checkpointed).backward()
    assert calls.count("checkpointed") == 9


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
def test_gradient_checkpointing_takes_less_memory(tmp_path: Path) -> None:
    """The peak of training above the loaded model, each in a process of its own: 12 layers keep one input each."""
    deep = {**LLAMA, "hidden_size": 64, "head_dim": 16, "intermediate_size": 256, "num_hidden_layers": 12,
            "max_position_embeddings": 256}
    built(deep).save(tmp_path / "deep")
    script = Path(__file__).parents[2] / "bench" / "weight_formats.py"
    taken = []
    for fields in ({}, {"gradient_checkpointing": True}):
        child = [sys.executable, str(script), "--child", str(tmp_path / "deep"), "8", "256", "1", json.dumps(fields)]
        found = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        taken.append((found["peak"] - found["held"], found["losses"]))
    (plain, losses), (checkpointed, same) = taken
    assert checkpointed < 0.75 * plain and losses == pytest.approx(same, abs=1e-5)


def test_attention_is_the_one_that_is_stated(folder: Path, tmp_path: Path) -> None:
    losses = {}
    for name in ("sdpa", "eager"):
        model = started(CausalLm, folder, attn_implementation=name)
        assert model.module.config._attn_implementation == name
        losses[name] = loss_of(model).item()
        model.save(tmp_path / name)
    assert losses["sdpa"] == pytest.approx(losses["eager"], abs=1e-5)
    assert tree_hash(tmp_path / "sdpa") == tree_hash(tmp_path / "eager")
    with pytest.raises(UserError, match="with this attention"):
        started(CausalLm, folder, attn_implementation="no_such_attention")


@pytest.mark.parametrize(("fields", "complaint"), [
    ({"dtype": "float64"}, "dtype must be one of"), ({"quantization": "int3"}, "quantization must be one of"),
])  # fmt: skip
def test_an_unknown_format_is_refused_when_a_recipe_is_read(fields: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CausalLm(folder="somewhere", **fields)


def test_random_weights_are_not_quantized() -> None:
    with pytest.raises(UserError, match="random weights"):
        built(LLAMA, quantization="nf4")


def test_a_missing_library_is_one_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="bitsandbytes, which is not installed"):
        started(CausalLm, folder, quantization="nf4")


@BITS
def test_an_adapter_is_trained_on_a_base_of_four_bits(folder: Path, tmp_path: Path) -> None:
    """The base has 16 values a block (here: few different numbers), stays as it is, and is merged in full precision."""
    from transformers import AutoModelForCausalLM

    model = started(CausalLm, folder, quantization="nf4")
    layer = model.module.model.layers[0].mlp.down_proj
    assert layer.weight.dtype == torch.uint8
    own = injection._values(layer.weight)
    exact = load_file(folder / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    assert 0 < (own - exact).abs().max() < 0.2 * exact.abs().max()
    losses = fit(model, Lora(rank=3), 20)
    assert losses[-1] < losses[0]
    assert torch.equal(injection._values(model.module.model.layers[0].mlp.down_proj.get_base_layer().weight), own)
    model.save(tmp_path / "saved")
    again = CausalLm(folder="gone", quantization="nf4")
    again.load(tmp_path / "saved")
    again.save(tmp_path / "again")
    assert tree_hash(tmp_path / "saved") == tree_hash(tmp_path / "again")
    with torch.no_grad():
        before = loss_of(again)
        torch.testing.assert_close(loss_of(model), before)
        injection.merge(again.module)
        again.save(tmp_path / "merged")
        plain = CausalLm(folder="gone")
        plain.load(tmp_path / "merged")
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").dtype == torch.float32
        torch.testing.assert_close(loss_of(plain), before, atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="quantized"):
        Full().attach(started(CausalLm, folder, quantization="nf4"), 3, 1)

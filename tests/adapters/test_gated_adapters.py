"""Tests of adapters with gates on their ranks: SoRA's proximal step, DyLoRA's nested ranks, ALoRA's ablation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from helpers.tiny_language_models import LLAMA, built, worked
from upturn.adapters.alora import Alora, reallocate
from upturn.adapters.dylora import Dylora
from upturn.adapters.sora import Sora
from upturn.errors import RunError
from upturn.models.causal_lm import CausalLm


def mean_loss(model: Any) -> torch.Tensor:
    batch = model.encode(worked(6))
    out = model.forward(batch.take(torch.arange(6)), None)
    return -(out.log_probs * out.mask).sum() / out.mask.sum()  # type: ignore[no-any-return]


def trained(model: Any, adapter: Any, steps: int, rate: float = 1e-2, key: int = 3) -> Any:
    adapter.attach(model, steps, key)
    optimiser = torch.optim.AdamW(list(adapter.parameters(model)), lr=rate)
    for step in range(steps):
        adapter.before_step(model, step, lambda count: float(mean_loss(model)))
        mean_loss(model).backward()
        optimiser.step()
        adapter.after_step(model, step + 1, rate)
        optimiser.zero_grad()
    adapter.finish(model)
    return model


@pytest.mark.slow
def test_sora_shrinks_gates_by_the_learning_rate_times_the_sparsity() -> None:
    model, adapter = built(LLAMA), Sora(rank=4, sparsity=0.3)
    adapter.attach(model, 5, 1)
    first = torch.tensor([0.05, -0.05, 0.002, -0.003])[:, None]
    for gates in adapter.values(model.module):
        gates.data.copy_(first)
    adapter.after_step(model, 1, 1e-2)
    expected = first.sign() * (first.abs() - 0.003).clamp(min=0)
    for gates in adapter.values(model.module):
        torch.testing.assert_close(gates.detach(), expected)


@pytest.mark.slow
def test_soras_closed_ranks_are_not_saved_and_stay_closed(tmp_path: Path) -> None:
    """What is saved is the open ranks alone, and a later stage trains on: other gates may close, none opens."""
    model = trained(built(LLAMA), Sora(rank=4, sparsity=1.0), 12)
    loss = mean_loss(model)

    def saved(folder: Path) -> dict[str, int]:
        model.save(folder)
        found = load_file(folder / "adapters" / "sora" / "adapter_model.safetensors")
        assert all(bool((value != 0).all()) for name, value in found.items() if name.endswith("lora_E"))
        for name, value in found.items():
            rank = len(found[name.rpartition(".")[0] + ".lora_E"])
            assert value.shape[1 if name.endswith("lora_B") else 0] == rank
        return {name: len(value) for name, value in found.items() if name.endswith("lora_E")}

    before = saved(tmp_path / "a")
    assert 0 < sum(before.values()) < 4 * len(before)
    model = CausalLm(config=LLAMA)
    model.load(tmp_path / "a")
    torch.testing.assert_close(mean_loss(model), loss)
    trained(model, Sora(rank=4, sparsity=1.0), 3)
    after = saved(tmp_path / "b")
    assert all(after[name] <= rank for name, rank in before.items())
    again = CausalLm(config=LLAMA)
    again.load(tmp_path / "b")
    torch.testing.assert_close(mean_loss(again), mean_loss(model))


def test_sora_refuses_to_end_with_nothing() -> None:
    model, adapter = built(LLAMA), Sora(rank=2)
    adapter.attach(model, 5, 1)
    adapter.after_step(model, 1, 1.0)
    with pytest.raises(RunError, match="every rank's gate is zero"):
        adapter.finish(model)


def test_dylora_trains_the_leading_ranks_of_the_step() -> None:
    model, adapter = built(LLAMA), Dylora(rank=6)
    adapter.attach(model, 100, 5)
    drawn = [adapter.drawn(model, step) for step in range(600)]
    counts = torch.bincount(torch.tensor(drawn), minlength=7)
    assert counts[0] == 0 and len(counts) == 7
    # 600 draws, 100 each: six standard deviations of a binomial are 55
    assert bool(((counts[1:] - 100).abs() < 55).all())
    step = drawn.index(3)
    adapter.before_step(model, step, lambda count: 0.0)
    mean_loss(model).backward()
    for _, layer in adapter.layers(model.module):
        into_b = layer.lora_B["dylora"].grad
        assert bool((into_b[:, 3:] == 0).all()) and bool((into_b[:, :3] != 0).any())
    adapter.after_step(model, step + 1, 1e-3)
    assert all(bool((gates == 1).all()) for gates in adapter.values(model.module))


def test_dyloras_ranks_are_of_key_and_step_alone() -> None:
    """So that a resumed stage draws the same; another stage draws others."""
    adapter, drawn = Dylora(rank=16), []
    for key in (5, 5, 6):
        model = built(LLAMA)
        adapter.attach(model, 100, key)
        drawn.append([adapter.drawn(model, step) for step in range(40)])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.slow
def test_dylora_is_exported_at_every_rank(tmp_path: Path) -> None:
    """Each cut, opened by `peft` alone, is the model with the first ranks on; other adapters are not cut this way."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from upturn.adapter_layers import adapter_files, lora_form

    adapter = Dylora(rank=4)
    trained(built(LLAMA), adapter, 12).save(tmp_path)
    model = CausalLm(config=LLAMA)
    model.load(tmp_path)
    model.module.eval()
    assert adapter_files.nested(model.module, "dylora")
    ids = torch.randint(3, 15, (2, 7), generator=torch.Generator().manual_seed(1))
    seen = []
    for rank in range(1, 5):
        adapter._only(model, rank)
        with torch.no_grad():
            ours = model.module(input_ids=ids).logits
        adapter._only(model, 4)
        of = lora_form.parts(model.module, "dylora", rank)
        assert {len(a) for a, _ in of.values()} == {rank}
        lora_form.write(model.module, of, tmp_path / str(rank), model.module.peft_config["dylora"])
        base = AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            theirs = PeftModel.from_pretrained(base, tmp_path / str(rank)).eval()(input_ids=ids).logits
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
        seen.append(ours)
    assert all((one - two).abs().max() > 1e-3 for one, two in pairwise(seen))


def test_alora_moves_the_least_important_ranks_to_layers_that_lost_none() -> None:
    """By hand: of eight open ranks two are closed, one each in two layers; the third has room for one more."""
    importance = [torch.tensor([-3.0, 5.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 3.0, 0.0]),
                  torch.tensor([9.0, 8.0, 7.0, 0.0])]
    kept = [torch.tensor([True, True, False, False]), torch.tensor([True, True, True, False]),
            torch.tensor([True, True, True, False])]
    moved = reallocate(importance, kept, 0.25)
    assert [each.tolist() for each in moved] == [
        [False, True, False, False],  # its mean is the lowest: it gets nothing
        [True, True, True, False],  # the other one, as the third is full
        [True, True, True, True],  # the only layer that lost none
    ]
    full = [torch.ones(2, dtype=torch.bool), torch.tensor([True, False])]
    moved = reallocate([torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0])], full, 0.3)
    assert sum(int(each.sum()) for each in moved) == 3  # the budget holds where a layer is full


@pytest.mark.slow
def test_alora_scores_a_rank_by_leaving_it_out_and_by_it_alone() -> None:
    model, adapter = built(LLAMA), Alora(rank=2, most=3, warmup=0.9, settle=0.05, moves=1)
    trained(model, adapter, 6)
    found = adapter._importance(model, lambda count: float(mean_loss(model)))
    open_gates = [gates.detach().clone() for gates in adapter.values(model.module)]

    def loss_with(change: Any) -> float:
        for gates, value in zip(adapter.values(model.module), change, strict=True):
            gates.data.copy_(value)
        return float(mean_loss(model))

    whole = loss_with(open_gates)
    for layer, rank in ((0, 0), (3, 1), (7, 0)):
        if not float(open_gates[layer][rank]):
            continue
        without = [gates.clone() for gates in open_gates]
        without[layer][rank] = 0.0
        alone = [torch.zeros_like(gates) for gates in open_gates]
        alone[layer][rank] = 1.0
        expected = -whole + loss_with(without) - loss_with(alone)  # S(M) - S(M without) + S(M alone), S minus the loss
        assert float(found[layer][rank]) == pytest.approx(expected, abs=1e-6)
    loss_with(open_gates)
    assert bool(torch.isinf(found[0][(open_gates[0] == 0)[:, 0]]).all())


@pytest.mark.slow
def test_alora_keeps_its_budget(tmp_path: Path) -> None:
    adapter = Alora(rank=2, moves=3, share=0.2, warmup=0.2)
    model = trained(built(LLAMA), adapter, 20)
    model.save(tmp_path)
    found = load_file(tmp_path / "adapters" / "alora" / "adapter_model.safetensors")
    ranks = [len(value) for name, value in found.items() if name.endswith("lora_E")]
    assert sum(ranks) == 2 * len(ranks) and len(set(ranks)) > 1

"""Tests of bf16 on a CPU: rounded weights in the passes, float32 everywhere else, close to the float32 training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from helpers.tiny_language_models import LLAMA, built, pairs, worked
from upturn.adapters.adalora import Adalora
from upturn.adapters.full import Full
from upturn.adapters.lora import Lora
from upturn.config.schema import Training
from upturn.data.groups import encode_groups, from_fields
from upturn.models.causal_lm import CausalLm
from upturn.objectives.dpo import Dpo
from upturn.objectives.likelihood import Likelihood
from upturn.training import narrow_passes, trainer
from upturn.training.feeds import FixedFeed
from upturn.training.history import History
from upturn.training.narrow_passes import NarrowPasses
from upturn.training.setup import TrainingSetup

pytestmark = pytest.mark.slow

SPEC = Training(epochs=3, batch_size=16, learning_rate=1e-2, precision="bf16", ema=0.9)


@pytest.fixture(autouse=True)
def hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 as on a processor that multiplies it, whatever this one is."""
    monkeypatch.setattr(narrow_passes, "multiplies_bf16", lambda device: True)


def fitted(spec: Training, **changes: Any) -> tuple[CausalLm, History]:
    model = built()
    base = TrainingSetup(spec=spec, objective=Likelihood(), adapter=Full(),
                         feed=FixedFeed(model.encode(worked()), spec.batch_size, 7), key=7, where="test")
    return model, trainer.train(model, replace(base, **changes))


@pytest.mark.parametrize("adapter", [Full(), Lora(rank=4), Adalora(rank=4)], ids=["full", "lora", "adalora"])
def test_it_learns_as_float32_does_and_frozen_weights_keep_their_bytes(adapter: Any) -> None:
    before = {name: value.clone() for name, value in built().module.state_dict().items()}
    narrow, one = fitted(SPEC, adapter=adapter)
    _, two = fitted(SPEC.model_copy(update={"precision": "fp32"}), adapter=adapter)
    assert one.points[-1]["loss"] == pytest.approx(two.points[-1]["loss"], rel=0.02)
    assert one.points[-1]["loss"] < one.points[0]["loss"] - 0.002
    for name, parameter in narrow.module.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.grad is None
        plain = name.replace(".base_layer", "")
        if not parameter.requires_grad and plain in before:
            assert torch.equal(parameter, before[plain])


def test_steps_below_the_precision_of_bf16_add_up() -> None:
    """A constant rate of 1e-5 moves a weight of 0.02 by less than half of bf16's spacing there (6e-5)."""
    spec = SPEC.model_copy(update={"learning_rate": 1e-5, "schedule": "constant", "warmup": 0.0, "ema": 0.0})
    after, before = (model.module.model.layers[0].mlp.up_proj.weight for model in (fitted(spec)[0], built()))
    moved = after - before
    assert 2e-5 < moved.abs().median() < 1.2e-4


@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_one_step_is_the_float32_step_on_the_rounded_gradient(clip: float) -> None:
    """Micro-batches, the mean over the global batch and clipping: written out with torch on a model of bf16 weights."""
    spec = SPEC.model_copy(update={"epochs": None, "steps": 1, "batch_size": 40, "micro_batch": 17, "ema": 0.0,
                                   "schedule": "constant", "warmup": 0.0, "clip": clip})
    model, _ = fitted(spec)
    other = built()
    feed = FixedFeed(other.encode(worked()), 40, 7)
    batch = feed.batch(0, lambda raw: raw)
    masters = [p.detach().clone().requires_grad_() for p in other.module.parameters()]
    for parameter in other.module.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    weight = 0.0
    for start in (0, 17, 34):
        micro = batch.take(torch.arange(start, min(start + 17, 40)))
        out = other.forward(micro, None)
        weight += float(out.mask.sum())
        (-(out.log_probs * out.mask).sum()).backward()
        for parameter, master in zip(other.module.parameters(), masters, strict=True):
            master.grad = parameter.grad.float() + (0 if master.grad is None else master.grad)
            parameter.grad = None
    for master in masters:
        master.grad /= weight
    torch.nn.utils.clip_grad_norm_(masters, clip)
    torch.optim.AdamW(masters, lr=spec.learning_rate, weight_decay=0.0).step()
    for parameter, master in zip(model.module.parameters(), masters, strict=True):
        torch.testing.assert_close(parameter, master, atol=1e-6, rtol=1e-5)


def test_dpo_packs_and_refers_in_bf16() -> None:
    found = []
    for precision in ("bf16", "fp32"):
        model = built()
        groups = encode_groups(model, from_fields(pairs())[0], 2)
        spec = Training(epochs=6, batch_size=6, learning_rate=1e-2, precision=precision, pack_tokens=60)
        history = trainer.train(model, TrainingSetup(
            spec=spec, objective=Dpo(), adapter=Lora(rank=4), feed=FixedFeed(groups, 6, 7), key=7, where="test"))
        found.append([point["loss"] for point in history.points])
    assert found[0][-1] == pytest.approx(found[1][-1], abs=0.05)
    assert found[0][-1] < found[0][0]


def test_tied_weights_and_other_precisions_are_restored() -> None:
    model = built({**LLAMA, "tie_word_embeddings": True})
    module = model.module
    module.model.layers[0].mlp.up_proj.to(torch.bfloat16)
    kept = {name: (value.data_ptr(), value.dtype) for name, value in module.state_dict().items()}
    passes = NarrowPasses(True)
    with passes(module), passes(module):
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert module.lm_head.weight is module.model.embed_tokens.weight
    assert {name: (value.data_ptr(), value.dtype) for name, value in module.state_dict().items()} == kept


def test_a_processor_without_bf16_trains_in_float32_and_notes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_passes, "multiplies_bf16", lambda device: False)
    notes: list[str] = []
    one, _ = fitted(SPEC, note=notes.append)
    two, _ = fitted(SPEC.model_copy(update={"precision": "fp32"}))
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True))
    assert len(notes) == 1 and "float32" in notes[0]

"""Tests of the memory that a plan states: measured tensors, texts cut short, and what a refusal advises."""

from __future__ import annotations

import pytest
import torch

from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.plan import memory, short_steps
from upturn.plan.live_memory import LiveMemory
from upturn.plan.memory import Memory
from upturn.types import Batch, Ragged

GIB = 2.0**30


def test_live_memory_is_the_largest_sum_of_tensors_that_live_at_once() -> None:
    """By hand: a (4,000 bytes) and b live together, then b is freed before c; views and in-place results are free."""
    with LiveMemory(torch.nn.Linear(2, 3)) as seen:
        a = torch.ones(1000)
        b = a * 2
        a.view(10, 100).add_(1)
        del b
        c = torch.ones(500)
    assert seen.peak == 8000
    assert len(c) == 500


def test_weights_and_logits_are_not_counted() -> None:
    linear = torch.nn.Linear(7, 11)
    with LiveMemory(linear, vocabulary=13) as seen:
        loss = linear(torch.ones(5, 7)).relu().sum() + torch.ones(5, 13).sum()
        loss.backward()
    gradients = 4 * (7 * 11 + 11)
    assert 2 * 4 * 5 * 11 <= seen.peak < 2 * 4 * 5 * 11 + 4 * 5 * 7 + 4 * 5 * 11 + gradients


def test_a_text_is_cut_and_keeps_the_share_that_is_learned() -> None:
    lengths = torch.tensor([40, 80, 120, 160])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    mask = torch.cat([torch.cat([torch.zeros(3 * n // 4), torch.ones(n - 3 * n // 4)]) for n in lengths.tolist()])
    batch = Batch({"tokens": Ragged(torch.arange(400), offsets), "mask": Ragged(mask, offsets)}, 1,
                  {"weights": torch.ones(4)})
    found = short_steps.shortened(batch, 64)
    assert found["tokens"].shape == found["mask"].shape == (1, 64)
    assert found["mask"].sum() == 16 and found["mask"][0, -16:].all()
    assert short_steps.shortened(batch, 240)["tokens"].shape == (2, 120)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    spec = Training(steps=3, batch_size=32)
    row = Memory("rounds/000/sft", "train", 2 * GIB, 1 * GIB, 2 * GIB, 8 * GIB)
    memory.require([row], 13 * GIB, [(row.unit, spec)], 8)
    with pytest.raises(UserError) as caught:
        memory.require([row], 9 * GIB, [(row.unit, spec)], 8)
    # 4 of 8 GiB are left for the activations of 32 rows
    for words in ("13.0 GiB", "9.0 GiB", "rounds/000/sft", "activations 8.0", "micro_batch: 16", "lora"):
        assert words in str(caught.value)


def test_sampling_that_does_not_fit_advises_fewer_rows() -> None:
    row = Memory("rounds/001", "sample", 1 * GIB, kv_cache=6 * GIB, logits=2 * GIB)
    with pytest.raises(UserError, match=r"settings\.batch: 64 rows"):
        memory.require([row], 5 * GIB, [], 128)

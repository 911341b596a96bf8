"""This package and TRL on the same Llama, texts and batch: samples per second and peak memory, paired."""

from __future__ import annotations

import pytest
from common import paired_speeds

_LEAST = {"small": 1.5, "dense": 1.0}  # the ratio aimed at: uneven texts at 1M parameters, dense batches at 14M


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", ["sft", "dpo", "reward", "rloo"])
@pytest.mark.parametrize("size", ["small", "dense"])
def test_side_by_side_with_trl(size: str, task: str) -> None:
    found = paired_speeds("speed.py", ["ours", task, size], ["trl", task, size])
    name = f"{task}, {'1M parameters, uneven texts' if size == 'small' else '14M parameters, dense batches'}"
    found.say(f"{name}, ours over TRL's", "samples")
    assert found.speed >= _LEAST[size]
    assert found.memory <= 1.0

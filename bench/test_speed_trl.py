"""This project and TRL side by side: the same Llama, texts and batch; samples a second and peak memory, paired."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from common import say

_PAIRS = int(os.environ.get("BENCH_PAIRS", "5"))
_LEAST = {"small": 1.5, "dense": 1.0}  # the ratio aimed at: uneven texts at 1M parameters, dense batches at 14M


def once(side: str, task: str, size: str) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).parent / "speed.py"), side, task, size]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stderr[-3000:]
    found: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    return found


@pytest.mark.parametrize("task", ["sft", "dpo", "reward", "rloo"])
@pytest.mark.parametrize("size", ["small", "dense"])
def test_side_by_side_with_trl(size: str, task: str) -> None:
    speeds, memories = [], []
    for _ in range(_PAIRS):  # one after the other each time: what the machine does to one it does to both
        ours, theirs = once("ours", task, size), once("trl", task, size)
        speeds.append(ours["per_second"] / theirs["per_second"])
        memories.append(ours["megabytes"] / theirs["megabytes"])
    name = f"{task}, {'1M parameters, uneven texts' if size == 'small' else '14M parameters, dense batches'}"
    say(f"{name}: samples a second, ours over TRL's, median of {_PAIRS} pairs ({min(speeds):.2f} to {max(speeds):.2f})",
        f"{statistics.median(speeds):.2f}")
    say(f"{name}: peak memory above imports, ours over TRL's", f"{statistics.median(memories):.2f}")
    assert statistics.median(speeds) >= _LEAST[size]
    assert statistics.median(memories) <= 1.0

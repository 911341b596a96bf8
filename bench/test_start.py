"""Start-up time of the commands, each as a complete process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from common import ROOT, say

UPTURN = Path(sys.executable).with_name("upturn")


def timed(*arguments: str, times: int = 3) -> tuple[float, str]:
    """Median seconds of a few calls, and what the last one printed."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        done = subprocess.run([UPTURN, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent), done.stdout


@pytest.mark.parametrize(
    ("arguments", "most"),
    [(["--help"], 0.5), (["plan", "recipes/digits.yaml"], 10.0), (["plan", "recipes/points.yaml"], 10.0),
     (["plan", "recipes/equations.yaml"], 10.0)],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_answers_in_time(arguments: list[str], most: float) -> None:
    seconds, _ = timed(*arguments)
    say(f"upturn {' '.join(arguments)}, seconds", f"{seconds:.2f} (bound {most:g})")
    assert seconds < most


@pytest.mark.parametrize("policy", ["replace", "accumulate"])
@pytest.mark.parametrize("dim", [1, 3])
def test_the_lab_agrees_with_theory_in_time(policy: str, dim: int) -> None:
    seconds, out = timed("lab", "gaussian", "--n", "100", "--rounds", "100", "--replicas", "10000", "--policy", policy,
                         "--dim", str(dim), "--json")
    found = json.loads(out)
    say(f"lab gaussian {policy} dim {dim}", f"{seconds:.2f} s, largest |z| {found['largest_z']:.2f} of 4")
    assert seconds < 10 and found["agree"]

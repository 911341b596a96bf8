"""A language model retrained on its own samples, alone or beside all earlier data, on real text."""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from common import RUNS, say

from upturn import report
from upturn.lab import experiment_runner
from upturn.lab.experiments import text as lab

DATA = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare"
# LAB_SEEDS=2 LAB_ROUNDS=4 for a first look on a busy machine
SETTINGS = {
    name: int(os.environ[variable])
    for name, variable in (("seeds", "LAB_SEEDS"), ("rounds", "LAB_ROUNDS")) if variable in os.environ
}
MINUTES = 15
NEAR_ZERO = 0.2  # of the slope under replace: what is added to everything written so far weighs ever less


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")
def test_replace_climbs_and_accumulate_does_not() -> None:
    folder = RUNS / "lab-text"
    began = time.perf_counter()
    found = experiment_runner.conduct("text", {"text": str(DATA), **SETTINGS}, folder)
    took = time.perf_counter() - began
    page = report.write_lab(folder)
    say("lab text, page", page.name)
    say("lab text, seconds of this call (0 if done before), of all parts", (round(took), found["seconds"]))
    rows = {(row["policy"], row["quantity"], int(row["round"])): row for row in found["checks"]}
    rounds = found["rounds"]
    for policy in ("replace", "accumulate"):
        for quantity in (lab.PERPLEXITY, lab.EXCESS, lab.DISTINCT, lab.TAIL, lab.NONWORDS):
            own = [rows[policy, quantity, t] for t in range(1, rounds + 1)]
            told = [f"{row['simulation']:.3f} ± {row['standard_error']:.3f}" for row in own]
            say(f"lab text, {policy}, {quantity} by round", ", ".join(told))
        said = [rows[policy, lab.TAIL, t]["theory"] for t in range(1, rounds + 1)]
        say(f"lab text, {policy}, tail words that chance alone would take", [round(value, 3) for value in said])
    climb = [rows["replace", lab.PERPLEXITY, t]["simulation"] for t in range(1, rounds + 1)]
    share, error = lab.part(rows["accumulate", lab.EXCESS, rounds], rows["replace", lab.EXCESS, rounds])
    say("lab text, excess under accumulate / under replace", f"{share:.3f} ± {error:.3f}")
    slopes = [rows[policy, lab.SLOPE, rounds] for policy in ("replace", "accumulate")]
    for policy, row in zip(("replace", "accumulate"), slopes, strict=True):
        say(f"lab text, {policy}, slope of the loss in the last half, nats a round",
            f"{row['simulation']:.4f} ± {row['standard_error']:.4f}")
    assert all(later > earlier for earlier, later in pairwise(climb))
    assert share + 2 * error <= 1 / 3
    assert slopes[1]["simulation"] <= NEAR_ZERO * slopes[0]["simulation"]
    assert found["agree"]
    assert found["seconds"] < MINUTES * 60 * 2  # of two cores

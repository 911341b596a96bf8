"""200 complete runs whose rounds cannot help, and 20 whose rounds do."""

from __future__ import annotations

import shutil

import pytest
from common import RUNS, say
from scipy import stats

from helpers.small_recipes import GAUSSIAN, small
from upturn.loop import loop
from upturn.runs import status

# nothing is curated by what the gate measures: the reward of a sample is noise that no model can learn
NULL = (
    "rounds.curate=[]", "rounds.mix.lambda=0.1", "rounds.sample.prompts=100", "rounds.sample.candidates=1",
    "rounds.count=3", "gate={metric: reward, alpha: 0.05}", "evaluate.metrics=[reward]", "evaluate.prompts=200",
    "rounds.score={name: 'luck:Luck'}",
)


@pytest.mark.parametrize(("name", "runs"), [("null", 200), ("helps", 20)])
def test_promotions(name: str, runs: int) -> None:
    folder = RUNS / f"gate-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    promoted = 0
    for seed in range(runs):
        settings = [f"seed={seed}", f"name=run-{seed}", *(NULL if name == "null" else ())]
        seen = status.read(loop.run(small(GAUSSIAN, *settings), folder))
        promoted += any(r.gate is not None and r.gate["decision"] == "promoted" for r in seen.rounds[1:])
    if name == "null":
        # at a true rate of 5%, at most this many of 200 in 99% of repetitions
        most = int(stats.binom.ppf(0.99, runs, 0.05))
        say("null: runs with any promotion", f"{promoted} of {runs} (stated share 5%, tolerance {most})")
        assert promoted <= most
    else:
        say("helps: runs with a promotion", f"{promoted} of {runs}")
        assert promoted >= 0.9 * runs

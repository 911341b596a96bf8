"""Unconditional digits for ten rounds, with and without real data, with and without curation."""

from __future__ import annotations

import numpy as np
from common import run, say
from fixed_point import settled

from upturn.runs.status import RunStatus


def shares(seen: RunStatus, number: int) -> np.ndarray:
    details = seen.rounds[number].metrics["class_shares"]["details"]
    return np.array([share["value"] for share in details["shares"].values()])


def curve(seen: RunStatus, metric: str) -> list[float]:
    return [round(r.metrics[metric]["value"], 3) for r in seen.rounds]


def test_fully_synthetic_loses_coverage_and_half_real_does_not() -> None:
    _, synthetic = run("collapse-synthetic", "digits-fully-synthetic.yaml")
    _, half = run("collapse-half", "digits-fully-synthetic.yaml", "rounds.mix.lambda=1.0")
    lost = {}
    for name, seen in (("fully synthetic", synthetic), ("lambda 1", half)):
        say(f"{name}, coverage by round", curve(seen, "coverage"))
        lost[name] = 1 - seen.rounds[10].metrics["coverage"]["value"] / seen.rounds[0].metrics["coverage"]["value"]
        say(f"{name}, coverage lost in ten rounds", f"{lost[name]:.3f}")
    say("n, samples a round", synthetic.recipe.rounds and synthetic.recipe.rounds.sample.prompts)
    assert lost["fully synthetic"] >= 0.30
    assert lost["lambda 1"] < 0.10


def test_curated_only_runs_away() -> None:
    _, seen = run("curated-only", "digits-curated-only.yaml")
    say("curated only, entropy of classes by round", curve(seen, "class_entropy"))
    say("curated only, shares at the end", np.round(shares(seen, 10), 3).tolist())
    assert seen.rounds[10].metrics["class_entropy"]["high"] < seen.rounds[0].metrics["class_entropy"]["low"]
    spread = [float(shares(seen, number).max() / shares(seen, number).min()) for number in range(11)]
    say("curated only, largest / smallest share by round", np.round(spread, 2).tolist())
    assert seen.rounds[10].metrics["class_shares"]["low"] > seen.rounds[0].metrics["class_shares"]["high"]


def test_curated_with_real_data_settles_at_the_fixed_point() -> None:
    done, seen = run("curated-real", "digits-curated-only.yaml", "rounds.mix.lambda=0.5")
    say("curated with real, entropy of classes by round", curve(seen, "class_entropy"))
    found = settled(done, range(6, 11), lam=0.5)
    say("settled shares", np.round(found.measured, 3).tolist())
    say("fixed point", np.round(found.predicted, 3).tolist())
    ends = zip(found.low, found.high, strict=True)
    say("difference, joint 95% interval", [f"{low:+.3f} to {high:+.3f}" for low, high in ends])
    agree = (found.low <= 0) & (found.high >= 0)
    say("classes that agree", f"{int(agree.sum())} of {len(agree)}")
    assert seen.rounds[10].metrics["class_entropy"]["value"] > 0.95 * seen.rounds[0].metrics["class_entropy"]["value"]
    assert agree.all()


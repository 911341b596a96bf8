"""Evidence 2: unconditional digits for ten rounds, with and without real data, with and without curation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from common import run, say

from upturn.status import RunStatus


def shares(seen: RunStatus, number: int) -> np.ndarray:
    details = seen.rounds[number].metrics["class_shares"]["details"]
    return np.array(list(details["shares"].values() if isinstance(details["shares"], dict) else details["shares"]))


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
    assert shares(seen, 10).max() > 2 * shares(seen, 0).max()


def test_curated_with_real_data_settles_at_the_fixed_point() -> None:
    from fixed_point import predicted

    done, seen = run("curated-real", "digits-curated-only.yaml", "rounds.mix.lambda=0.5")
    say("curated with real, entropy of classes by round", curve(seen, "class_entropy"))
    settled = np.mean([shares(seen, number) for number in range(6, 11)], axis=0)
    point, low, high = predicted(done, seen)
    say("settled shares", np.round(settled, 3).tolist())
    say("fixed point", np.round(point, 3).tolist())
    say("its interval", json.dumps([np.round(low, 3).tolist(), np.round(high, 3).tolist()]))
    inside = (settled >= low) & (settled <= high)
    say("classes inside the interval", f"{int(inside.sum())} of {len(inside)}")
    assert inside.all()


if __name__ == "__main__":
    pytest.main([__file__, "-s"])

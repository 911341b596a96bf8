"""The forecast of a run against its outcome, on recipes that were not used for tuning.

Fixed before any of them was run, and not changed since:

- The measure is diversity after the recipe's rounds over that of round 0 (``drawn.outcome``): of a Gaussian the
  geometric mean of the standard deviations, of categories the effective number 1/Σp².
- "stable" from 0.9 to 1/0.9, "collapses" below 0.5 or above 2, "drifts" between: ``theory.kind_of``.
- 20 recipes of each class: recipes are drawn in sequence, and each is taken until its class is full.
- The verdict is ``upturn.plan.disk_and_theory.forecast``, as ``upturn plan`` prints it: from the recipe and
  its real data alone.

``TUNING`` seeds were used while the theory was written; ``FRESH`` ones were first run by this test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from common import say
from drawn import draw, opened, outcome

from upturn.plan.disk_and_theory import forecast
from upturn.theory import kind_of

TUNING, FRESH = 0, 1_000_000  # the first seeds
EACH = 20
KINDS = ("stable", "drifts", "collapses")
RESAMPLES = 10_000


@dataclass(frozen=True)
class Case:
    """A recipe, by its seed: its class foreseen and measured, and the diversity left that each goes by."""

    seed: int
    foreseen: str
    kept: float
    measured: str
    left: float


def cases(first: int) -> Iterator[Case]:
    for seed in count(first):
        found = opened(draw(seed))
        verdict = forecast(found.parts, found.splits, found.parts.model("policy"))
        assert verdict is not None
        left = outcome(found)
        yield Case(seed, verdict.kind, verdict.kept, kind_of(left), left)


def twenty_of_each(first: int) -> tuple[list[Case], list[Case]]:
    """The recipes kept, and all that were drawn until the last class was full."""
    kept: list[Case] = []
    drawn: list[Case] = []
    full: Counter[str] = Counter()
    for case in cases(first):
        drawn.append(case)
        if full[case.measured] < EACH:
            full[case.measured] += 1
            kept.append(case)
        if len(kept) == EACH * len(KINDS):
            return kept, drawn
    raise AssertionError("recipes never end")


def recalls(found: list[Case]) -> np.ndarray:
    """(3,) of each measured class, how much was foreseen."""
    rows = [[c.foreseen == kind for c in found if c.measured == kind] for kind in KINDS]
    return np.array([np.mean(row) for row in rows])


def interval(found: list[Case]) -> tuple[float, float]:
    """95% of the balanced accuracy: recipes resampled within their classes."""
    rng = np.random.default_rng(0)
    right = [np.array([c.foreseen == kind for c in found if c.measured == kind]) for kind in KINDS]
    drawn = [row[rng.integers(0, len(row), (RESAMPLES, len(row)))].mean(axis=1) for row in right]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return float(low), float(high)


def tell(name: str, kept: list[Case], drawn: list[Case]) -> float:
    for kind in KINDS:
        row = {said: sum(c.measured == kind and c.foreseen == said for c in kept) for said in KINDS}
        say(f"{name}: of {EACH} that are measured '{kind}', foreseen as", row)
    found, (low, high) = float(recalls(kept).mean()), interval(kept)
    say(f"{name}: balanced accuracy (95% interval)", f"{found:.3f} ({low:.3f} to {high:.3f})")
    common, times = Counter(c.measured for c in drawn).most_common(1)[0]
    say(f"{name}: majority baseline, balanced accuracy", f"{recalls_of_one(kept, common):.3f} (always '{common}')")
    right = np.mean([c.foreseen == c.measured for c in drawn])
    say(f"{name}: all {len(drawn)} drawn, accuracy", f"{right:.3f}; majority baseline {times / len(drawn):.3f}")
    wrong = [(c.seed, c.foreseen, round(c.kept, 3), round(c.left, 3)) for c in kept if c.foreseen != c.measured]
    say(f"{name}: wrong ones as seed, foreseen, foreseen share, measured share", wrong)
    return found


def recalls_of_one(kept: list[Case], always: str) -> float:
    return float(np.mean([np.mean([always == kind for c in kept if c.measured == kind]) for kind in KINDS]))


def test_on_recipes_it_was_tuned_on() -> None:
    """What tuning saw; no claim rests on it. How well another run of a recipe foretells the first is the ceiling."""
    kept, drawn = twenty_of_each(TUNING)
    tell("tuning", kept, drawn)
    again = [replace(case, foreseen=kind_of(outcome(opened(draw(case.seed)), chance=1))) for case in kept]
    say("tuning: balanced accuracy of a second run as the forecast of the first", f"{recalls(again).mean():.3f}")


def test_on_recipes_never_seen() -> None:
    assert tell("fresh", *twenty_of_each(FRESH)) >= 0.85

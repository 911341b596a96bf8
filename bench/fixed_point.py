"""The class shares to which a curated run with real data converges, and those that theory predicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upturn import theory
from upturn.config import recipe
from upturn.embeddings.inference import forwarded
from upturn.loop.assemble import assemble
from upturn.loop.run_context import RunContext
from upturn.observer import Observer
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Samples

RESAMPLES = 4000
LEVEL = 0.95  # of all classes together: ten intervals of 95% each would miss one in four times (Bonferroni)


@dataclass(frozen=True)
class Round:
    """Classes of a round's candidates (P, K) by the referee, and which were kept (P, K)."""

    classes: Array
    kept: Array


def rounds_of(done: Run, numbers: Sequence[int]) -> tuple[Array, list[Round]]:
    """Classes of the real training samples (N,), and the rounds."""
    context = RunContext(done, assemble(recipe.parse(done.recipe_text, "recipe.yaml")), Observer())
    referee = context.tools.model("referee")

    def named(samples: Samples) -> Array:
        return forwarded(referee, "referee", samples, "logits").argmax(axis=1)

    found = []
    for number in numbers:
        unit = done.unit(f"rounds/{number:03d}")
        samples = parquet_tables.read_samples(unit / "samples.parquet")
        kept = parquet_tables.read_selections(unit / "selections.parquet", samples.ids)[-1].kept
        candidates = int(samples.candidate.max()) + 1
        found.append(Round(named(samples).reshape(-1, candidates), kept.reshape(-1, candidates)))
    return named(context.tools.train), found


def _shares(classes: Array, count: int) -> Array:
    return np.bincount(classes.reshape(-1), minlength=count) / classes.size


@dataclass(frozen=True)
class Settled:
    """Shares before selection (C,), the fixed point (C,), and the joint 95% interval of their difference (C,)."""

    measured: Array
    predicted: Array
    low: Array
    high: Array


def settled(done: Run, numbers: Sequence[int], lam: float, count: int = 10) -> Settled:
    """The mean shares of the rounds against the fixed point of the advantage measured in them.

    The interval of measured - predicted comes from resampling prompts within rounds and real samples: both move
    together, since the advantage is measured on the samples whose shares are compared.
    """
    real, rounds = rounds_of(done, numbers)
    rng = np.random.default_rng(0)

    def both(real_classes: Array, picked: Sequence[Round]) -> tuple[Array, Array]:
        before = np.mean([_shares(r.classes, count) for r in picked], axis=0)
        after = np.mean([_shares(r.classes[r.kept], count) for r in picked], axis=0)
        return before, theory.fixed_point_from_advantage(_shares(real_classes, count), after / before, lam)

    measured, predicted = both(real, rounds)
    gaps = []
    for _ in range(RESAMPLES):
        drawn = []
        for one in rounds:
            rows = rng.integers(0, len(one.classes), len(one.classes))
            drawn.append(Round(one.classes[rows], one.kept[rows]))
        a, b = both(real[rng.integers(0, len(real), len(real))], drawn)
        gaps.append(a - b)
    tail = (1 - LEVEL) / 2 / count
    low, high = np.quantile(gaps, [tail, 1 - tail], axis=0)
    return Settled(measured, predicted, low, high)

"""Do two neighbouring checkpoints draw the same thing from the same noise, or does the design flip?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.statistics.intervals import resampled_mean
from upturn.types import Array


@dataclass(frozen=True)
class Consistency:
    """Of the cells (prompt, seed) of a grid, from one checkpoint to the next.

    ratio    mean distance of a cell to itself, over the mean distance between different seeds of one prompt:
             0 the same images, 1 as different as another seed;  low, high its 95% interval, by prompts
    flipped  share of cells that moved at least as far as another seed of their prompt is away on average
    cells    how many
    """

    ratio: float
    low: float
    high: float
    flipped: float
    cells: int


def consistency(before: Array, after: Array, key: int) -> Consistency | None:
    """Features (P, K, D) of P prompts with K seeds each, at two checkpoints, from the same noise.

    None with K < 2 (the distance between seeds is unknown), or where all seeds give one image.
    """
    _, seeds, _ = before.shape
    if before.shape != after.shape or seeds < 2:
        return None
    a, b = before.astype(np.float64), after.astype(np.float64)
    moved = np.linalg.norm(b - a, axis=2)  # (P, K)
    apart = (_between(a) + _between(b)) / 2  # (P,)
    scale = float(apart.mean())
    if not scale > 0:
        return None
    ratio = float(moved.mean()) / scale
    # a ratio of two means over prompts: its influence values are those of the mean (m - ratio * a) / scale
    low, high = resampled_mean(ratio + (moved.mean(axis=1) - ratio * apart) / scale, key)
    flipped = float((moved >= apart[:, None]).mean())
    return Consistency(ratio, max(low, 0.0), high, flipped, moved.size)


def _between(features: Array) -> Array:
    """(P,) mean distance between different seeds of a prompt."""
    count = features.shape[1]
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    total = sum(np.linalg.norm(features[:, i] - features[:, j], axis=1) for i, j in pairs)
    mean: Array = np.asarray(total) / len(pairs)
    return mean

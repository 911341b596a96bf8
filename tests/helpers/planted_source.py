"""A source that labels samples of an earlier run as real data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from upturn.protocols import Source
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Prompt, Splits, real_samples

DIMS = 4


def real_points(n: int, seed: int) -> np.ndarray:
    """Two clusters, which a single Gaussian cannot be."""
    draw = np.random.default_rng(seed)
    points = draw.standard_normal((n, DIMS)) * 0.5
    points[:, 0] += np.where(draw.random(n) < 0.5, -2.0, 2.0)
    return points.astype(np.float32)


@dataclass(frozen=True)
class Planted(Source):
    """``n`` points, a ``share`` of them samples of round 1 of ``run`` with a little noise: no copies."""

    kind: ClassVar = "points"

    n: int = 400
    share: float = 0.0
    run: str = ""
    seed: int = 0

    def load(self) -> Splits:
        count = round(self.share * self.n)
        points = real_points(self.n - count, self.seed)
        if count:
            made = parquet_tables.read_samples(Run.open(Path(self.run)).unit("rounds/001") / "samples.parquet").content
            draw = np.random.default_rng(self.seed + 1)
            picked = made[draw.choice(len(made), count, replace=False)]
            points = np.concatenate([points, (picked + 0.1 * draw.standard_normal(picked.shape)).astype(np.float32)])
        points = points[np.random.default_rng(self.seed + 2).permutation(self.n)]
        every = real_samples("points", points, [Prompt()] * self.n, "planted")
        held_out = np.arange(self.n) % 5 == 0
        return Splits(every.take(~held_out), every.take(held_out))

"""Mixing policy: a fixed number of rows from the real ones and all that every round so far kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn import seeds
from upturn.data.base_mixing_policy import BaseMixingPolicy
from upturn.data.ratio import real_and_synthetic
from upturn.types import REAL, SYNTHETIC, Array, MixingCase


@dataclass(frozen=True)
class AccumulateSubsample(BaseMixingPolicy):
    """``size`` rows without replacement from the real rows and what every round so far kept.

    Kazdan et al. 2024, "Collapse or thrive?", section 3 (accumulate-subsample). With λ, round(size / (1 + λ)) rows are
    real; without (null) the draw is uniform over the pool. ``mix.size`` null: as many rows as there are real ones.
    """

    theory: ClassVar[MixingCase | None] = "accumulate_subsample"
    accumulates: ClassVar[bool] = True
    subsamples: ClassVar[bool] = True

    def subsample(self, origin: Array, size: int, share: float | None, key: int) -> Array:
        size = min(size, len(origin))
        rng = seeds.generator(seeds.key(key, "subsample"))
        if share is None:
            return np.sort(rng.choice(len(origin), size, replace=False))
        drawn = []
        for name, wanted in real_and_synthetic(size, share).items():
            rows = np.flatnonzero(origin == name)
            drawn.append(rng.choice(rows, min(wanted, len(rows)), replace=False))
        return np.sort(np.concatenate(drawn))

    def expected_rows(self, real: float, synthetic: float, size: int, share: float | None) -> dict[str, float]:
        pool = {REAL: real, SYNTHETIC: synthetic}
        total = real + synthetic
        if share is None:
            drawn = min(size / total, 1.0) if total else 0.0
            return {name: count * drawn for name, count in pool.items()}
        wanted = real_and_synthetic(int(min(size, total)), share)
        return {name: min(wanted[name], count) for name, count in pool.items()}

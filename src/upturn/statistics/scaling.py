"""Features in units of the spread of some data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.types import Array


@dataclass(frozen=True)
class Scale:
    """Mean and deviations (n - 1) of some data; what does not vary in it is left out."""

    mean: Array
    deviation: Array
    kept: Array

    @staticmethod
    def of(features: Array) -> Scale:
        deviation = features.std(axis=0, ddof=1, dtype=np.float64)
        kept = deviation > 0
        return Scale(features.mean(axis=0, dtype=np.float64)[kept], deviation[kept], kept)

    def __call__(self, features: Array) -> Array:
        scaled: Array = ((features[:, self.kept] - self.mean) / self.deviation).astype(np.float32)
        return scaled

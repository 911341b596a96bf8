"""Published examples of inter-annotator agreement."""

from __future__ import annotations

import math

import numpy as np

from upturn.annotation.statistics.agreement import Level, UnitValues, _Parts
from upturn.types import Array

N = math.nan


PUBLISHED = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
])  # fmt: skip


def unit_values(values: Array, tasks: Array | None = None) -> UnitValues:
    """Unit values of an (annotators, units) array."""
    _, unit = np.indices(values.shape)
    return UnitValues(unit.ravel(), values.ravel(), unit.ravel() if tasks is None else tasks[unit.ravel()])


def point(values: Array, level: Level) -> float:
    parts = _Parts.of(unit_values(values), level)
    assert parts is not None
    return float(parts.alpha(np.ones((1, len(parts.sizes))))[0])

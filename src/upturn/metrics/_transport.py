"""Optimal transport on a line, with the potential that gives each sample's cost."""

from __future__ import annotations

import numpy as np

from upturn.types import Array


def on_lines(x: Array, y: Array, order: int) -> tuple[Array, Array]:
    """(L,) costs W_p^p between the columns of ``x`` (n, L) and ``y`` (m, L), exact, and (n, L) potentials of ``x``.

    On a line quantiles are matched (Santambrogio 2015, theorem 2.9). A potential is the cost's derivative in the weight
    of each row (mean 0): from one point of x to the next it grows by c(x', y) - c(x, y), y what is matched where one
    ends and the next begins; where both sides step at once, by the mean of the two.
    """
    n, m = len(x), len(y)
    order_x = np.argsort(x, axis=0)
    high, low = np.take_along_axis(x, order_x, axis=0), np.sort(y, axis=0)
    # pieces of [0, 1] between all i/n and j/m, in units of 1/(n m)
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    sizes = np.diff(ends, prepend=0) / (n * m)
    i, j = (ends - 1) // m, (ends - 1) // n
    costs = (np.abs(high[i] - low[j]) ** order * sizes[:, None]).sum(axis=0)
    step = np.arange(1, n) * m
    before, after = low[(step - 1) // n], low[np.minimum(step // n, m - 1)]
    growth = sum(
        np.abs(high[1:] - matched) ** order - np.abs(high[:-1] - matched) ** order for matched in (before, after)
    ) / 2
    potential = np.zeros_like(high)
    potential[1:] = np.cumsum(growth, axis=0)
    potential -= potential.mean(axis=0)
    found = np.empty_like(potential)
    np.put_along_axis(found, order_x, potential, axis=0)
    return costs, found


def root(value: float, order: int) -> float:
    """W from W^p, where an interval's end may have fallen below 0."""
    return float(max(value, 0.0) ** (1 / order))

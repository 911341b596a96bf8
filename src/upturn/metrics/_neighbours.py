"""Nearest neighbours by blocks of a distance matrix that is never held whole. Distances are squared and Euclidean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from upturn.types import Array

_CELLS = 2_000_000  # squared distances held at a time: 16 MB


def blocks(a: Array, b: Array) -> Iterator[tuple[int, Array]]:
    """(first row, (rows, M) squared distances) for rows of ``a`` (N, D) against all of ``b`` (M, D), float64."""
    centre = b.mean(axis=0)  # features far from the origin would lose digits in |a|^2 - 2ab + |b|^2
    b = b - centre
    squares = np.einsum("ij,ij->i", b, b)
    step = max(1, _CELLS // max(1, len(b)))
    for start in range(0, len(a), step):
        part = a[start : start + step] - centre
        block = part @ (-2 * b.T)
        block += squares
        block += np.einsum("ij,ij->i", part, part)[:, None]
        yield start, np.maximum(block, 0, out=block)


def nearest(a: Array, b: Array) -> tuple[Array, Array]:
    """(N,) distances (not squared, exact: a copy is at 0) and (N,) rows of ``b`` nearest to each row of ``a``."""
    rows = np.concatenate([block.argmin(axis=1) for _, block in blocks(a, b)])
    return np.linalg.norm(a - b[rows], axis=1), rows


def neighbours(a: Array, count: int) -> tuple[Array, Array]:
    """(N, count) squared distances, ascending, and rows of the nearest others of ``a`` itself."""
    values, rows = [], []
    for start, block in blocks(a, a):
        own = np.arange(len(block))
        block[own, start + own] = np.inf
        near = np.argpartition(block, count - 1, axis=1)[:, :count]
        found = np.take_along_axis(block, near, axis=1)
        order = found.argsort(axis=1, kind="stable")
        values.append(np.take_along_axis(found, order, axis=1))
        rows.append(np.take_along_axis(near, order, axis=1))
    return np.concatenate(values), np.concatenate(rows)


def radii(a: Array, k: int) -> Array:
    """(N,) squared distance to the k-th nearest other row of ``a``."""
    found = []
    for start, block in blocks(a, a):
        own = np.arange(len(block))
        block[own, start + own] = np.inf
        found.append(np.partition(block, k - 1, axis=1)[:, k - 1])
    return np.concatenate(found)


def within(a: Array, b: Array, limits: Array) -> tuple[Array, Array, Array]:
    """(P,) rows of ``a``, (P,) rows of ``b``, (P,) squared distances of all pairs no farther than ``limits``.

    ``limits`` is squared, (N, 1) for a ball round each row of ``a`` or (1, M) round each of ``b``.
    """
    firsts, seconds, distances = [], [], []
    for start, block in blocks(a, b):
        limit = limits[start : start + len(block)] if limits.shape[1] == 1 else limits
        i, j = np.nonzero(block <= limit)
        firsts.append(start + i)
        seconds.append(j)
        distances.append(block[i, j])
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(distances)

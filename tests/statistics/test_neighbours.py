"""Tests of nearest neighbours in blocks of float32: answers equal those of float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from upturn.statistics import memo as memory
from upturn.statistics import neighbour_balls
from upturn.statistics import neighbours as module
from upturn.statistics.neighbour_balls import balls_around_real, balls_around_synthetic
from upturn.statistics.neighbours import Ground, nearest, neighbours, radii


@pytest.fixture(autouse=True)
def _forgetful():
    memory._known.clear()


def draw(n: int, d: int, seed: int, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


def hard(case: str, seed: int) -> np.ndarray:
    """Sets on which float32 products lose all digits of what is near: far from the origin, tight in clusters, tied."""
    rng = np.random.default_rng(seed)
    if case == "far":
        return (rng.standard_normal((300, 5)) + 1e4).astype(np.float32)
    if case == "tight":
        return (1e4 * rng.integers(0, 2, (300, 1)) + 1e-2 * rng.standard_normal((300, 5))).astype(np.float64)
    if case == "tied":
        return rng.integers(0, 3, (300, 4)).astype(np.float32)
    if case == "one place":
        return np.ones((300, 3), np.float32)
    return draw(300, 64, seed)


CASES = ["plain", "far", "tight", "tied", "one place"]


def true(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return cdist(a.astype(np.float64), b.astype(np.float64), "sqeuclidean")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cells", [2**24, 3_000])
def test_neighbours_are_those_of_float64(case, cells, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", cells)
    a = hard(case, 1)
    every = true(a, a)
    np.fill_diagonal(every, math.inf)
    squared, rows = neighbours(a, 7)
    np.testing.assert_allclose(squared, np.sort(every, axis=1)[:, :7], rtol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(every, rows, axis=1), squared, rtol=1e-12)
    assert all(len(set(row)) == 7 for row in rows.tolist())
    assert radii(a, 3).tolist() == squared[:, 2].tolist()


@pytest.mark.parametrize("case", CASES)
def test_a_copy_is_at_distance_0(case):
    b = hard(case, 2)
    a = np.concatenate([b[::3], hard(case, 3)])
    distances, rows = nearest(a, b)
    assert (distances[: len(b[::3])] == 0).all()
    every = true(a, b)
    np.testing.assert_allclose(distances**2, every.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(every[np.arange(len(a)), rows], every.min(axis=1), rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by", ["rows", "columns"])
def test_distances_within_a_radius_are_decided_as_in_float64(case, by, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 20_000)
    a, b = hard(case, 4), hard(case, 5)
    every = true(a, b)
    # limits at a distance that occurs, so that equality is decided, too; and ones that hold many
    for rank in (4, 150):
        limits = np.sort(every, axis=1)[:, [rank]] if by == "rows" else np.sort(every, axis=0)[[rank]]
        found = np.concatenate([
            block.within(torch.from_numpy(limits[block.start :][: len(block.part)] if by == "rows" else limits)).numpy()
            for block in Ground.of(b).blocks(a)
        ])
        assert (found == (every <= limits * (1 + 1e-12))).all()


def test_bounds_hold_at_2048_dimensions():
    a, b = draw(60, 2048, 1) * 3 + 1, draw(500, 2048, 2)
    for block in Ground.of(b).blocks(a):
        lower, every = block.lower.double().numpy(), true(a, b)
        width = 2 * block.ground.slack * (block.squares[:, None] + block.ground.squares).double().numpy()
        assert (lower <= every).all() and (every <= lower + width).all()
        assert (width / every).max() < 1e-3  # they are bounds that say something


@pytest.mark.parametrize("k", [1, 4])
def test_balls_are_met_as_by_brute_force(k, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 5_000)
    real, made = draw(120, 3, 1), draw(90, 3, 2) * np.float32(0.7)
    own, theirs, across = true(real, real), true(made, made), true(real, made)
    np.fill_diagonal(own, math.inf)
    np.fill_diagonal(theirs, math.inf)
    inside = across <= np.sort(own, axis=1)[:, [k - 1]]
    holds, covered, pairs = balls_around_real(real, made, k)
    assert holds.tolist() == inside.sum(axis=0).tolist()
    assert covered.tolist() == inside.any(axis=1).tolist()
    listed = set(zip(pairs.real.tolist(), pairs.synthetic.tolist(), strict=True))
    assert listed <= set(zip(*map(np.ndarray.tolist, np.nonzero(inside)), strict=True))
    np.testing.assert_allclose(pairs.squared, across[pairs.real, pairs.synthetic], rtol=1e-12)
    ranked = np.sort(theirs, axis=0)
    reached, pairs = balls_around_synthetic(real, made, k)
    assert reached.tolist() == (across <= ranked[k - 1]).any(axis=1).tolist()
    wide = across <= ranked[neighbour_balls.reach(k, len(made)) - 1]
    count = np.minimum(wide.sum(axis=1), neighbour_balls._LISTED)
    assert np.bincount(pairs.real, minlength=120).tolist() == count.tolist()
    assert (wide[pairs.real, pairs.synthetic]).all()


@pytest.mark.slow
def test_a_collapsed_model_makes_no_list_of_all_pairs():
    """All samples in every ball: 3,000 x 2,000 pairs, of which a few a row are listed, and the counts are whole."""
    real, made = draw(2000, 2, 1), draw(3000, 2, 2) * np.float32(1e-3)
    radius = radii(real, 1500)
    inside = true(real, made) <= radius[:, None]
    holds, _, pairs = balls_around_real(real, made, 1500)
    assert holds.tolist() == inside.sum(axis=0).tolist()
    assert len(pairs.real) <= 2000 * neighbour_balls._LISTED


def test_answers_are_remembered_by_their_bytes_and_few_are_kept():
    calls = []

    @memory.remembered
    def doubled(a: np.ndarray, factor: int) -> np.ndarray:
        calls.append(factor)
        return a * factor

    x = draw(4, 2, 0)
    assert doubled(x, 2) is doubled(x.copy(), 2)
    assert calls == [2]
    x[0, 0] += 1
    assert doubled(x, 2)[0, 0] == 2 * x[0, 0]
    for factor in range(3, 3 + memory._MOST):
        doubled(x, factor)
    assert len(memory._known) == memory._MOST
    doubled(x, 2)
    assert calls[-1] == 2

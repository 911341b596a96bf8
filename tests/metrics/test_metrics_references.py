"""Metrics beside the packages that the field uses, on the same numbers."""

from __future__ import annotations

import contextlib
import io
import math
import warnings

import numpy as np
import pytest
import torch

from helpers.metric_cases import evidence, measure, normal, real, sampled
from upturn.metrics._gaussian_fit import GaussianFit, distance_and_influence
from upturn.metrics._spectrum import Spectrum
from upturn.metrics._transport import on_lines
from upturn.metrics.mauve import area, divergence_curve, frontier
from upturn.metrics.zipf import Law

pytestmark = pytest.mark.slow


def mixed(n: int, d: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Features that hang together, as an encoder's do."""
    mixing = np.random.default_rng(99).standard_normal((8, d))
    noise = np.random.default_rng(seed).standard_normal((n, d))
    return np.maximum(normal(n, 8, seed, scale) @ mixing + 0.3 * noise, 0).astype(np.float32)


@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall_density_coverage_are_prdcs(k):
    """Theirs counts a distance below the radius, ours one up to it: the same where no two distances are equal."""
    from prdc import compute_prdc

    sample, true = mixed(400, 64, 1, 0.8), mixed(350, 64, 2)
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = compute_prdc(true, sample, k)
    given = evidence(sampled(sample), normal(9, 64, 3), true)
    for name, value in theirs.items():
        assert measure(name, given, k=k).value == pytest.approx(float(value), abs=1e-12), name


def test_frechet_is_torchmetrics():
    from torchmetrics.image.fid import _compute_fid

    a, b = mixed(500, 32, 1, 0.9).astype(np.float64), mixed(600, 32, 2).astype(np.float64)
    moments = [torch.from_numpy(x) for part in (a, b) for x in (part.mean(axis=0), np.cov(part.T))]
    theirs = float(_compute_fid(*moments))
    assert distance_and_influence(a, GaussianFit.of(b))[0] == pytest.approx(theirs, rel=1e-6)


def test_kid_is_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    a, b = mixed(300, 32, 1, 0.9), mixed(300, 32, 2)
    theirs = float(poly_mmd(torch.from_numpy(a.astype(np.float64)), torch.from_numpy(b.astype(np.float64))))
    found = measure("kid", evidence(sampled(a), normal(9, 32, 3), b))
    assert found.value == pytest.approx(theirs, rel=1e-4)  # float32, of a difference of three sums


def test_kid_in_blocks_is_the_same(monkeypatch):
    from upturn.metrics import kid
    from upturn.statistics import memo

    given = evidence(sampled(mixed(90, 6, 1)), mixed(50, 6, 2), mixed(70, 6, 3))
    whole = measure("kid", given)
    monkeypatch.setattr(kid, "_CELLS", 700)
    memo._known.clear()
    parts = measure("kid", given)
    assert [parts.value, parts.low, parts.high] == pytest.approx([whole.value, whole.low, whole.high], rel=1e-4)
    assert parts.details == pytest.approx(whole.details, rel=1e-3)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
@pytest.mark.parametrize(("n", "d"), [(40, 64), (200, 16)])  # the kernel's side, and the features'
def test_vendi_and_its_cousins_are_vendi_scores(order, n, d):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vendi_score.vendi import score_K

        sample = mixed(n, d, 1) + np.float32(0.01)
        unit = sample.astype(np.float64) / np.linalg.norm(sample.astype(np.float64), axis=1, keepdims=True)
        theirs = float(score_K(unit @ unit.T, q="inf" if order == math.inf else order))
    given = evidence(sampled(sample), normal(9, d, 2), normal(9, d, 3))
    found = measure("vendi", given, kernel="cosine", order=order)
    # at 1/2 their eigenvalues of 1e-17, which are rounding, count for something
    assert found.value == pytest.approx(theirs, rel=1e-3 if order < 1 else 1e-6)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("order", [1, 2])
def test_wasserstein_is_pots(order):
    import ot

    a, b = normal(60, 3, 1, 1.2), normal(80, 3, 2, 1.0, 0.3)
    theirs = ot.emd2([], [], ot.dist(a.astype(np.float64), b.astype(np.float64), "euclidean") ** order) ** (1 / order)
    found = measure("wasserstein", evidence(sampled(a), normal(9, 3, 3), b), order=order)
    assert found.value == pytest.approx(float(theirs), rel=1e-9)
    line = measure("wasserstein", evidence(sampled(a[:, :1]), normal(9, 1, 3), b[:, :1]), order=order)
    theirs = ot.wasserstein_1d(a[:, 0].astype(np.float64), b[:, 0].astype(np.float64), p=order)
    assert line.value == pytest.approx(float(theirs) ** (1 / order), rel=1e-9)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 45), (45, 30), (7, 31)])
def test_transport_on_lines_is_scipys_and_its_potentials_are_optimal(order, n, m):
    """The dual: potentials f, and g from them, never above the cost and with the primal as their sum: proof of both."""
    from scipy.stats import wasserstein_distance

    rng = np.random.default_rng(n * m)
    x, y = rng.standard_normal((n, 4)), rng.standard_normal((m, 4)) * 1.5 + 0.5
    costs, potentials = on_lines(x, y, order)
    if order == 1:
        assert costs.tolist() == pytest.approx([wasserstein_distance(x[:, i], y[:, i]) for i in range(4)])
    for i in range(4):
        table = np.abs(x[:, [i]] - y[None, :, i]) ** order
        other = (table - potentials[:, [i]]).min(axis=0)
        assert potentials[:, i].mean() + other.mean() == pytest.approx(costs[i], rel=1e-9)


def test_sliced_wasserstein_is_pots():
    import ot

    a, b = normal(150, 5, 1, 1.2), normal(130, 5, 2, 1.0, 0.3)
    found = measure("sliced_wasserstein", evidence(sampled(a), normal(20, 5, 3), b), directions=4000)
    theirs = ot.sliced_wasserstein_distance(a.astype(np.float64), b.astype(np.float64), n_projections=4000, seed=1)
    assert found.value == pytest.approx(float(theirs), rel=0.03)  # other directions, 4,000 of them


def test_mauve_is_mauve_texts_curve_and_frontier():
    from mauve.compute_mauve import get_divergence_curve_for_multinomials, get_fronter_integral
    from sklearn.metrics import auc

    rng = np.random.default_rng(3)
    p, q = rng.dirichlet(np.ones(30)), rng.dirichlet(np.full(30, 0.3))
    p[:3], q[3:6] = 0, 0
    p, q = p / p.sum(), q / q.sum()
    theirs = get_divergence_curve_for_multinomials(p, q, np.linspace(1e-6, 1 - 1e-6, 25), 5)
    x, y = theirs[1:-1].T  # without the ends
    # theirs starts from the samples' side
    mine = divergence_curve(q[None], p)
    np.testing.assert_allclose(np.sort(mine[0][0]), np.sort(x), atol=1e-9)
    np.testing.assert_allclose(np.sort(mine[1][0]), np.sort(y), atol=1e-9)
    x, y = theirs.T
    expected = (auc(*(v[np.argsort(x)] for v in (x, y))) + auc(*(v[np.argsort(y)] for v in (y, x)))) / 2
    assert area(q[None], p)[0] == pytest.approx(expected, rel=1e-6)
    assert frontier(q, p) == pytest.approx(get_fronter_integral(p, q), rel=1e-9)


def test_the_frontier_is_its_integral():
    from scipy.integrate import quad

    rng = np.random.default_rng(4)
    p, q = rng.dirichlet(np.ones(12)), rng.dirichlet(np.ones(12))

    def mixed_divergence(w: float) -> float:
        r = w * p + (1 - w) * q
        return float(w * (p * np.log(p / r)).sum() + (1 - w) * (q * np.log(q / r)).sum())

    assert frontier(q, p) == pytest.approx(2 * quad(mixed_divergence, 0, 1)[0], rel=1e-6)


def test_mauve_of_real_features_is_near_mauve_texts():
    """k-means of two libraries: the cells differ, the scores hardly."""
    import mauve

    sample, true = mixed(600, 32, 1, 0.7), mixed(600, 32, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = mauve.compute_mauve(p_features=true, q_features=sample, verbose=False).mauve
    found = measure("mauve", evidence(sampled(sample), normal(9, 32, 3), true))
    assert found.value == pytest.approx(float(theirs), abs=0.05)
    assert found.details["cells"] == 60


def test_zipfs_exponent_is_powerlaws():
    import powerlaw

    counts = np.random.default_rng(5).zipf(2.2, 4000)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = powerlaw.Fit(counts, discrete=True, xmin=1, estimate_discrete=False, verbose=False)
        alpha = float(theirs.power_law.alpha)
    values, how_many = np.unique(counts, return_counts=True)
    from upturn.metrics.zipf import _fit

    assert _fit(values, how_many).alpha == pytest.approx(alpha, abs=2e-3)
    found = Law.of(counts)
    assert found is not None
    assert abs(found.alpha - 2.2) < 4 * found.error
    # the error is what the exponent scatters by: 60 draws, so 4 standard errors of a deviation are 36%
    drawn = [_fit(*np.unique(np.random.default_rng(r).zipf(2.2, 1000), return_counts=True)) for r in range(60)]
    assert np.std([law.alpha for law in drawn]) == pytest.approx(np.mean([law.error for law in drawn]), rel=0.36)


def test_spectra_of_both_sides_are_one():
    """Second moments of features and the kernel matrix: the same eigenvalues, entropies and influences."""
    unit = mixed(50, 12, 1).astype(np.float64) + 0.01
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    by_kernel = Spectrum.of_similarity(unit @ unit.T)
    by_features = Spectrum.of_features(lambda: iter([unit[:20], unit[20:]]))
    np.testing.assert_allclose(np.sort(by_kernel.values), np.sort(by_features.values), atol=1e-12)
    for order in (0.5, 1.0, 3.0, math.inf):
        assert by_kernel.entropy(order) == pytest.approx(by_features.entropy(order))
        np.testing.assert_allclose(by_kernel.influence(order), by_features.influence(order), atol=1e-8)


def test_fourier_features_give_the_score_of_the_kernel_that_they_stand_for():
    sample = normal(300, 3, 1)
    given = evidence(sampled(sample), normal(300, 3, 2), normal(9, 3, 3))
    exact = measure("vendi", given, bandwidth=1.5)
    near = measure("vendi", given, bandwidth=1.5, kernel="fourier", frequencies=4000)
    assert near.value == pytest.approx(exact.value, rel=0.03)
    assert real(sample).kind == "points"

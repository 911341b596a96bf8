"""Tests of the formulas that the lab's experiments use: limits, special cases and numerical optima."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from upturn import seeds, theory


def test_the_tilts_first_order_error_leaves_the_second() -> None:
    """What is left falls fourfold where K doubles."""
    source = seeds.generator(seeds.key("test tilt"))
    p, r = source.dirichlet(np.ones(5)), source.standard_normal(5)

    def left(k: int) -> float:
        gap = theory.curated_update(p, r, k) - theory.tilted(p, r) - theory.tilt_error(p, r, k)
        return float(np.abs(gap).max())

    assert left(500) / left(1000) == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    ("share", "a", "b", "lam", "slip"),
    [(0.3, 0.2, 0.1, 1.0, 0.1), (0.3, 0.9, 0.2, 2.0, 0.05), (0.5, 0.4, 0.4, 0.5, 0.2), (0.3, 0.3, 0.2, math.inf, 0.1),
     (0.3, 0.9, 0.2, math.inf, 0.1)],
)  # fmt: skip
def test_the_verifiers_limit_is_where_its_rounds_end(share: float, a: float, b: float, lam: float, slip: float) -> None:
    ends = theory.verified_rounds(share, a, b, 5000, lam=lam, slip=slip)
    assert theory.verified_limit(share, a, b, lam, slip) == pytest.approx(ends, abs=1e-6)


@pytest.mark.parametrize("lam", [0.5, 3.0])
def test_a_judge_of_just_the_odds_needed_ends_at_real_data(lam: float) -> None:
    share, slip, keeps_bad = 0.3, 0.1, 0.5
    odds = theory.judge_needed(share, slip)
    for factor, side in ((0.95, -1), (1.0, 0), (1.05, 1)):
        ends = theory.verified_limit(share, keeps_bad, 1 - odds * factor * keeps_bad, lam, slip)
        assert np.sign(round(ends - share, 9)) == side
    assert theory.judge_needed(0.3, 0.7) == math.inf


def test_selection_is_that_of_a_truncated_normal() -> None:
    for fraction in (0.01, 0.25, 0.9):
        kept = stats.truncnorm(stats.norm.isf(fraction), math.inf)
        intensity, lost = theory.selection_intensity(fraction)
        assert intensity == pytest.approx(kept.mean(), rel=1e-6)
        assert 1 - lost == pytest.approx(kept.var(), rel=1e-5)


def test_noise_in_the_score_weakens_selection() -> None:
    """Two coordinates, 400,000 samples: the best quarter by a noisy score, within 4 standard errors (of the mean)."""
    source, n = seeds.generator(seeds.key("test select")), 400_000
    mean, covariance, likes = np.array([0.5, -1.0]), np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([1.0, 0.5])
    x = source.multivariate_normal(mean, covariance, n)
    score = x @ likes + 1.5 * source.standard_normal(n)
    kept = x[np.argsort(-score)[: n // 4]]
    said = theory.select_best(mean, covariance, likes, 1.5, 0.25)
    assert np.abs(kept.mean(axis=0) - said.mean).max() < 4 * math.sqrt(2.0 / len(kept)) * 1.5
    assert np.cov(kept.T) == pytest.approx(said.covariance, abs=0.04)


def test_the_best_round_is_that_of_the_formula() -> None:
    def lost(t: float) -> float:
        return -theory.gold(theory.tilted_normal(t, np.array([1.0, 0.4])), 0.8)

    assert optimize.minimize_scalar(lost, bounds=(0, 50), method="bounded").x == pytest.approx(
        theory.turning_round(0.4, 0.8), abs=1e-3
    )
    assert theory.turning_round(0.0, 1.0) == math.inf


def test_temperature_and_nucleus_of_shares() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    twice = theory.tempered_shares(theory.tempered_shares(p, 0.7), 0.7)
    assert twice == pytest.approx(theory.tempered_shares(p, 0.7, 2))
    assert theory.tempered_shares(p, 0.5) == pytest.approx(p**2 / (p**2).sum())
    assert theory.nucleus(p, 0.8) == pytest.approx([0.625, 0.375, 0, 0])
    assert theory.nucleus(p[::-1], 0.5) == pytest.approx([0, 0, 0, 1])
    assert theory.nucleus_rounds(p, 0.8, 1) == pytest.approx([0.625, 0.375, 0, 0])
    assert theory.nucleus_rounds(p, 0.6, 2) == pytest.approx([1, 0, 0, 0])  # 0.625 alone reaches 0.6 in the second
    assert theory.diversity_half_life(p, top_p=0.8) == math.inf and theory.diversity_half_life(p, 0.5) < 3


def test_half_life_of_a_gaussian() -> None:
    half = theory.gaussian_half_life(20, 0.95)
    assert (0.95**2 * (1 - 1 / 20)) ** half == pytest.approx(0.5)
    assert theory.gaussian_half_life(20, 1.1) == math.inf


def test_moments_of_blends_have_the_known_special_cases() -> None:
    n, t = 30, 12
    only = theory.mixed_moments(n, n, math.inf, t)
    assert only.variance == pytest.approx(theory.mean_variance(n, t, division="n"))
    assert only.drift == pytest.approx(theory.mean_drift(n, t, division="n"))
    grown = theory.accumulated_moments(n, t)
    assert grown.variance == pytest.approx(theory.accumulated_variance(n, t, division="n"))
    assert grown.drift == pytest.approx(theory.accumulated_drift(n, t, division="n"))
    many, lam, tau = 10**9, 2.0, 0.8  # no finite sample left: temperature alone
    cold = theory.mixed_moments(many, many, lam, 400, temperature=tau)
    assert cold.variance == pytest.approx(theory.tempered_variance(lam, tau), abs=1e-6)
    kernel = theory.mixed_moments(n, n, math.inf, 4000, kernel=0.04)
    assert kernel.variance == pytest.approx((n - 1) * 0.04, rel=1e-6)  # what the kernel adds, chance takes


def test_silvermans_rule_of_one_dimension() -> None:
    assert math.sqrt(theory.adaptive_kernel(100)) == pytest.approx(1.06 * 100**-0.2, rel=2e-3)

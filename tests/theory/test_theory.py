"""Tests of every formula of the theory against simulation, enumeration, quadrature or a published figure."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import optimize, stats

from upturn import seeds, theory
from upturn.theory import Selector

SIGMAS = 4.0  # standard errors: of some 60 checks one in 260 reseedings of them all would miss it; seeds are fixed


def near(values: np.ndarray, truth: float) -> None:
    """The mean of (R,) independent values is ``truth`` within SIGMAS of its standard error."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - truth) <= SIGMAS * error, f"{values.mean()} is not {truth} ± {error}"


def rng(name: str) -> np.random.Generator:
    return seeds.generator(seeds.key("test theory", name))


# --- Gaussians --------------------------------------------------------------------------------------------------------


def test_alpha_is_the_mean_of_a_chi_variable_and_the_published_values() -> None:
    for n, published in ((10, 0.972659), (32, 0.991969), (100, 0.997478)):
        assert theory.alpha(n) == pytest.approx(published, abs=5e-7)
        assert theory.alpha(n) == pytest.approx(stats.chi(n - 1).mean() / math.sqrt(n - 1), rel=1e-10)
    exact = [math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2)) for n in (1001, 3000)]
    assert [theory.alpha(n) for n in (1001, 3000)] == pytest.approx(exact, abs=1e-11)  # the series beyond 1,000
    assert 1 - theory.alpha(10**9) == pytest.approx(0.25e-9, rel=1e-6)


@pytest.mark.parametrize("division", ["n", "n-1"])
def test_one_gaussian_replaced(division: theory.Division) -> None:
    """n = 12 and 5 rounds: the squares are light enough to be averaged (t ψ₁ = 0.94)."""
    n, rounds, replicas = 12, 5, 40_000
    source = rng(f"replace {division}")
    mean, sigma = np.zeros(replicas), np.ones(replicas)
    for _ in range(rounds):
        x = mean[:, None] + sigma[:, None] * source.standard_normal((replicas, n))
        mean, sigma = x.mean(axis=1), x.std(axis=1, ddof=1 if division == "n-1" else 0)
    near(sigma**2, theory.mean_variance(n, rounds, division=division))
    near(np.log(sigma**2), theory.mean_log_variance(n, rounds, division=division))
    near(mean**2, theory.mean_drift(n, rounds, division=division))
    spread = np.log(sigma**2)
    near((spread - spread.mean()) ** 2, theory.log_variance_spread(n, rounds) * (1 - 1 / replicas))
    if division == "n-1":
        near(sigma, theory.mean_sigma(n, rounds))
        assert theory.mean_sigma(n, rounds, 3.0) == pytest.approx(3 * theory.mean_sigma(n, rounds))


def test_heavy_tails_at_n_10_after_100_rounds_equal_the_documented_ones() -> None:
    assert theory.alpha(10) ** -200 - 1 == pytest.approx(255, abs=1)  # squared coefficient of variation of σ_t
    assert theory.log_variance_spread(10, 100) / 4 > 1 and theory.log_variance_spread(100, 100) / 4 < 1


@pytest.mark.parametrize("division", ["n", "n-1"])
def test_log_det_in_three_dimensions(division: theory.Division) -> None:
    n, dim, rounds, replicas = 8, 3, 3, 20_000
    source, root = rng(f"log det {division}"), np.tile(np.eye(3), (20_000, 1, 1))
    for _ in range(rounds):
        x = source.standard_normal((replicas, n, dim)) @ root.swapaxes(1, 2)
        x = x - x.mean(axis=1, keepdims=True)
        root = np.linalg.cholesky(x.swapaxes(1, 2) @ x / (n if division == "n" else n - 1))
    log_det = 2 * np.log(np.einsum("rii->ri", root)).sum(axis=1)
    near(log_det, theory.mean_log_det(n, dim, rounds, division=division))
    assert theory.mean_log_det(n, 1, rounds) == pytest.approx(theory.mean_log_variance(n, rounds))


@pytest.mark.parametrize("division", ["n", "n-1"])
def test_one_gaussian_accumulated(division: theory.Division) -> None:
    n, rounds, replicas = 4, 6, 40_000
    source = rng(f"accumulate {division}")
    mean, sigma, pool = np.zeros(replicas), np.ones(replicas), np.empty((replicas, 0))
    for _ in range(rounds):
        x = mean[:, None] + sigma[:, None] * source.standard_normal((replicas, n))
        pool = np.concatenate([pool, x], axis=1)
        mean, sigma = pool.mean(axis=1), pool.std(axis=1, ddof=1 if division == "n-1" else 0)
    near(sigma**2, theory.accumulated_variance(n, rounds, division=division))
    near(mean**2, theory.accumulated_drift(n, rounds, division=division))
    if division == "n":
        assert theory.accumulated_variance(n, rounds) + theory.accumulated_drift(n, rounds) == pytest.approx(1)


def test_the_accumulate_product_reaches_its_limit() -> None:
    for n, published in ((10, 0.8434), (32, 0.9494), (100, 0.9836)):
        assert theory.accumulated_limit(n) == pytest.approx(published, abs=5e-5)
        assert theory.accumulated_variance(n, 100_000) == pytest.approx(theory.accumulated_limit(n), abs=2e-6)


def test_temperature_multiplies_the_variance() -> None:
    """n large: temperature is all there is. 1,000,000 samples err by 1.4e-3 a round in the variance."""
    source, sigma = rng("temperature"), 1.0
    for _ in range(3):
        sigma = (0.9 * sigma * source.standard_normal(1_000_000)).std()
    assert sigma**2 == pytest.approx(theory.temperature_shrink(0.9, 3), rel=SIGMAS * 1.4e-3 * math.sqrt(3))
    variance = 1.0
    for _ in range(500):
        variance = (1 + 0.7 * 0.8**2 * variance) / (1 + 0.7)
    assert variance == pytest.approx(theory.tempered_variance(0.7, 0.8))


# --- regression, discrete ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["replace", "accumulate", "accumulate_fresh"])
def test_regression_risk(kind: str) -> None:
    samples, dim, noise, rounds, replicas = 14, 3, 0.5, 4, 20_000
    source = rng(f"regression {kind}")
    truth = np.ones(dim)
    w, gram, moment = np.tile(truth, (replicas, 1)), np.zeros((replicas, dim, dim)), np.zeros((replicas, dim))
    x = source.standard_normal((replicas, samples, dim))
    for _ in range(rounds):
        if kind != "accumulate":
            x = source.standard_normal((replicas, samples, dim))
        y = np.einsum("rtd,rd->rt", x, w) + math.sqrt(noise) * source.standard_normal((replicas, samples))
        keep = 0.0 if kind == "replace" else 1.0
        gram = keep * gram + x.swapaxes(1, 2) @ x
        moment = keep * moment + np.einsum("rtd,rt->rd", x, y)
        w = np.linalg.solve(gram, moment[:, :, None])[:, :, 0]
    formula = getattr(theory, f"regression_risk_{kind}")
    near(((w - truth) ** 2).sum(axis=1), formula(samples, dim, noise, rounds))


def test_regression_accumulate_is_bounded_and_fresh_inputs_do_better() -> None:
    once = theory.regression_risk_replace(50, 5, 1.0, 1)
    assert theory.regression_risk_accumulate(50, 5, 1.0, 100_000) == pytest.approx(math.pi**2 / 6 * once, rel=1e-4)
    fresh, same = theory.regression_risk_accumulate_fresh, theory.regression_risk_accumulate
    assert fresh(50, 5, 1.0, 1) == same(50, 5, 1.0, 1)
    assert all(fresh(50, 5, 1.0, t) < same(50, 5, 1.0, t) for t in range(2, 30))


def test_heterozygosity_replaced() -> None:
    p, n, rounds = np.array([0.5, 0.3, 0.2]), 20, 10
    source, q = rng("heterozygosity"), np.tile(p, (20_000, 1))
    for _ in range(rounds):
        q = source.multinomial(n, q) / n
    near(1 - (q**2).sum(axis=1), theory.mean_heterozygosity(n, rounds, theory.heterozygosity(p)))


@pytest.mark.parametrize("subsample", [None, 7])
def test_heterozygosity_accumulated(subsample: int | None) -> None:
    p, n, rounds, real = np.array([0.5, 0.3, 0.2]), 6, 8, 10
    source, pool = rng(f"pool {subsample}"), np.tile(p, (40_000, 1))
    for k in range(1, rounds + 1):
        model = pool if subsample is None else source.multinomial(subsample, pool) / subsample
        pool = pool + n / (real + k * n) * (source.multinomial(n, model) / n - pool)
    start = theory.heterozygosity(p)
    near(1 - (pool**2).sum(axis=1), theory.accumulated_heterozygosity(n, rounds, real, start, subsample))
    forever = theory.accumulated_heterozygosity(n, 100_000, real, start, subsample)
    assert forever > 0.5 * start  # the loss has a limit
    first_real = theory.accumulated_variance(n, rounds + 1) / (1 - 1 / n)
    assert theory.accumulated_heterozygosity(n, rounds, n) == pytest.approx(first_real)


def test_lost_modes_by_drift() -> None:
    """8 modes, 20 rounds: 2.3 lost at n = 100, none at n = 2,000; the exact chain against a direct simulation."""
    equal = np.full(8, 1 / 8)
    exact = theory.expected_lost_modes(equal, 100, 20)
    assert exact.value == pytest.approx(2.3, abs=0.05) and exact.standard_error == 0
    assert theory.expected_lost_modes(equal, 2000, 20).value < 1e-6
    uneven = np.array([0.7, 0.25, 0.05])
    for shares, n, rounds in ((equal, 100, 20), (uneven, 15, 1), (uneven, 15, 6)):
        source, q = rng(f"modes {n} {rounds}"), np.tile(shares, (10_000, 1))
        for _ in range(rounds):
            q = source.multinomial(n, q) / n
        near((q == 0).sum(axis=1).astype(float), theory.expected_lost_modes(shares, n, rounds).value)


def test_lost_modes_beyond_the_exact_chain_are_simulated_with_a_stated_error() -> None:
    """One mode of 5/n: lost in one round with (1 - 5/n)^n; never seen lost is not error 0."""
    n = 3000
    found = theory.expected_lost_modes(np.array([5 / n, 1 - 5 / n]), n, 1)
    assert found.standard_error > 0
    assert abs(found.value - (1 - 5 / n) ** n) <= SIGMAS * found.standard_error
    assert theory.expected_lost_modes(np.full(4, 0.25), n, 2).standard_error > 0


# --- real data in every round -----------------------------------------------------------------------------------------


def _student(theta: float, x: np.ndarray) -> np.ndarray:
    return stats.t.logpdf(x - theta, 3)


@pytest.mark.parametrize("lam", [0.5, 8.0])
def test_contraction_rates_bound_a_misspecified_learner(lam: float) -> None:
    """A Student-t location family on data that are two Gaussians: the map's slope at θ* by finite differences."""
    x = np.linspace(-60, 60, 24_001)
    step = x[1] - x[0]
    data = 0.7 * stats.norm.pdf(x, -0.7, 0.6) + 0.3 * stats.norm.pdf(x, 1.8, 0.5)

    def best(synthetic_from: float | None) -> float:
        weight = data if synthetic_from is None else data + lam * np.exp(_student(synthetic_from, x))
        found = optimize.minimize_scalar(
            lambda th: -np.sum(weight * _student(th, x)) * step, bounds=(-3, 3), options={"xatol": 1e-10}
        )
        return float(found.x)

    star = best(None)
    assert best(star) == pytest.approx(star, abs=1e-5)  # the optimum is the fixed point though no model is the truth
    h = 0.05
    slope = (best(star + h) - best(star - h)) / (2 * h)

    def curvature(weight: np.ndarray) -> float:
        second = (_student(star + 1e-3, x) - 2 * _student(star, x) + _student(star - 1e-3, x)) / 1e-6
        return float(-np.sum(weight * second) * step)

    a, b = curvature(data), curvature(np.exp(_student(star, x)))
    assert slope == pytest.approx(lam * (b / a) / (1 + lam * b / a), abs=2e-3)
    sharp, cited = (f(lam, a, abs(b - a)) for f in (theory.contraction_rate_sharp, theory.contraction_rate))
    assert slope <= sharp + 2e-3 and sharp < cited and sharp < 1
    assert (cited == math.inf) == (lam == 8.0)  # beyond the cited condition the learner still settles


def test_contraction_without_mismatch() -> None:
    for lam in (0.1, 1.0, 10.0):
        assert theory.contraction_rate(lam) == theory.contraction_rate_sharp(lam) == pytest.approx(lam / (1 + lam))
    assert theory.contraction_rate(1.0, 1.0, 0.2) == pytest.approx(1.2 / 1.8)
    assert theory.contraction_rate(3.0, 1.0, 0.2) == math.inf


def test_mean_parameters_of_an_exponential_family_move_exactly_so() -> None:
    """A family on 6 points with 2 features, refitted by numerical maximum likelihood."""
    source, lam = rng("family"), 0.6
    features, data = source.standard_normal((6, 2)), source.dirichlet(np.ones(6))

    def probabilities(theta: np.ndarray) -> np.ndarray:
        logits = features @ theta
        return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()

    theta = np.array([0.5, -0.4])
    start = features.T @ probabilities(theta)
    for t in range(1, 4):
        target = (data + lam * probabilities(theta)) / (1 + lam)
        theta = optimize.minimize(lambda th: -target @ np.log(probabilities(th)), theta, tol=1e-12).x  # noqa: B023
        expected = theory.mean_parameter(features.T @ data, start, lam, t)
        assert features.T @ probabilities(theta) == pytest.approx(expected, abs=1e-5)


def test_errors_settle_where_the_formulas_say() -> None:
    lam, n, weight, k = 2.0, 5, 0.6, 0.5
    source, fixed, fresh = rng("settle"), np.zeros(40_000), np.zeros(40_000)
    for _ in range(40):
        fixed = lam / (1 + lam) * (fixed + source.standard_normal(40_000) / math.sqrt(n))
        synthetic = fresh + source.standard_normal(40_000) * math.sqrt(k / n)  # n / k of them
        fresh = weight * source.standard_normal(40_000) / math.sqrt(n) + (1 - weight) * synthetic
    near(fixed**2, theory.stationary_error(n, lam))
    near(n * fresh**2, theory.fresh_error(weight, k))


def test_best_real_weight_is_the_minimum_and_golden_at_equal_sizes() -> None:
    assert theory.best_real_weight(1.0) == pytest.approx((math.sqrt(5) - 1) / 2)
    for k in (0.05, 0.5, 1.0, 8.0):
        found = optimize.minimize_scalar(lambda w: theory.fresh_error(w, k), bounds=(1e-3, 1), method="bounded")  # noqa: B023
        assert theory.best_real_weight(k) == pytest.approx(found.x, abs=1e-4)


# --- curation ---------------------------------------------------------------------------------------------------------


def enumerated_kernel(p: np.ndarray, r: np.ndarray, candidates: int) -> np.ndarray:
    """H by summing over every tuple of the other K - 1."""
    fitness, out = np.exp(r - r.max()), np.zeros(len(p))
    for others in itertools.product(range(len(p)), repeat=candidates - 1):
        chance = float(np.prod(p[list(others)]))
        out += chance * candidates * fitness / (fitness + fitness[list(others)].sum())
    return out


def cases(count: int, name: str, most: int = 6, spread: float = 1.5) -> list[tuple[np.ndarray, np.ndarray]]:
    source = rng(name)
    sizes = source.integers(2, most + 1, count)
    return [(source.dirichlet(np.full(m, 0.7)), spread * source.standard_normal(m)) for m in sizes]


@pytest.mark.parametrize("candidates", [1, 2, 3, 5])
def test_choice_kernel_is_the_enumerated_expectation(candidates: int) -> None:
    for p, r in cases(6, f"kernel {candidates}", most=4, spread=3):
        h = theory.choice_kernel(p, r, candidates)
        assert h == pytest.approx(enumerated_kernel(p, r, candidates), rel=1e-10)
        assert p @ h == pytest.approx(1, abs=1e-12)
        assert theory.choice_kernel(p, r + 1000, candidates) == pytest.approx(h, rel=1e-9)


def test_choice_kernel_with_rewards_far_apart_and_wrong_ones() -> None:
    p, r = np.array([0.5, 0.5]), np.array([0.0, -300.0])
    assert theory.choice_kernel(p, r, 4) == pytest.approx(enumerated_kernel(p, r, 4), rel=1e-9)
    with pytest.raises(ValueError, match="finite"):
        theory.choice_kernel(p, np.array([0.0, math.nan]), 4)


def test_many_candidates_tilt_by_the_reward() -> None:
    """K → ∞: the error of H falls as 1/K; two rounds of tilting are one with twice the reward."""
    for p, r in cases(5, "tilt", spread=1.0):
        errors = [np.abs(theory.curated_update(p, r, k) - theory.tilted(p, r)).max() for k in (1000, 10_000)]
        assert errors[1] < 0.15 * errors[0] < 0.01
        assert theory.tilted(theory.tilted(p, r), r) == pytest.approx(theory.tilted(p, r, 2))


def test_growth_and_pile_up_and_mode_loss_bounds_hold() -> None:
    source = rng("bounds")
    for p, r in cases(300, "growth"):
        k, lam = int(source.integers(2, 12)), float(source.uniform(0.05, 3))
        after = theory.curated_update(p, r, k)
        assert after @ np.exp(r) >= theory.growth_bound(p, r, k) - 1e-9 * np.exp(r.max())
        least, pile, reach = theory.growth_bound_real(p, r, k, lam), theory.kl_bound(lam, k), float(np.ptp(r))
        assert theory.kl_bound(lam, k, reach) <= pile
        q = p
        for _ in range(8):
            q = theory.mixed_update(q, p, r, k, lam)
            assert q @ np.exp(r) >= least - 1e-9 * np.exp(r.max())
            assert np.sum(q * np.log(q / p)) <= theory.kl_bound(lam, k, reach) + 1e-12
            assert np.all(q >= p / theory.mode_loss_bound(lam) * (1 - 1e-12))
            assert np.sum(p * np.log(p / q)) <= math.log(theory.mode_loss_bound(lam)) + 1e-12


def test_the_pile_up_bound_is_nearly_reached_by_a_rare_prize_and_infinite_from_its_threshold() -> None:
    """One sample in a million far better than all: selection multiplies it by K until it is common."""
    p, r, lam, k = np.array([1e-6, 1 - 1e-6]), np.array([60.0, 0.0]), 0.3, 4
    q = p
    for _ in range(200):  # the last of it comes slowly: by λK/(1+λ) = 0.92 a round
        q = theory.mixed_update(q, p, r, k, lam)
    assert math.log(q[0] / p[0]) == pytest.approx(theory.kl_bound(lam, k), rel=1e-3)
    assert theory.kl_bound(1 / 3, 4) == math.inf and theory.kl_bound(0.33, 4) < math.inf


def test_curated_only_collapses_on_the_best_rewarded() -> None:
    p, r = np.full(5, 0.2), np.array([0.0, 0.1, 0.2, 0.3, 0.9])
    for _ in range(60):
        p = theory.curated_update(p, r, 4)
    assert p[4] > 1 - 1e-6 and p @ np.exp(r) == pytest.approx(np.exp(0.9), rel=1e-5)


@pytest.mark.parametrize("candidates", [2, 4])
def test_half_lives_of_curation(candidates: int) -> None:
    """Best of n on a fine support by order statistics; `choice` with rewards far apart is the best of n."""
    m = 4000
    edges = np.linspace(0, 1, m + 1)
    days = theory.best_of_n_half_life(candidates)
    after = np.diff(edges ** (candidates**days))  # the best of K^t
    entropy = -np.sum(after[after > 0] * np.log(after[after > 0]))
    assert entropy == pytest.approx(math.log(m / 2), abs=1e-3)
    far = theory.curated_half_life(np.arange(60) * 9.0, candidates)
    assert far == pytest.approx(days, rel=0.25)  # it interpolates between whole rounds, on 60 points
    assert theory.curated_half_life(np.zeros(10), candidates) == math.inf
    assert theory.best_of_n_half_life(1) == math.inf


# --- where rounds settle ----------------------------------------------------------------------------------------------


def test_fixed_point_of_the_example() -> None:
    settled = theory.fixed_point(np.array([0.5, 0.5]), np.array([0.5, -0.5]), 4, 1.0)
    assert settled == pytest.approx([0.651, 0.349], abs=5e-4)
    assert -np.sum(settled * np.log(settled)) / math.log(2) == pytest.approx(0.933, abs=5e-4)
    kernel = enumerated_kernel(settled, np.array([0.5, -0.5]), 4)
    assert settled == pytest.approx((0.5 + settled * kernel) / 2, abs=1e-9)


def test_fixed_point_is_one_and_moves_by_lambda_times_the_advantage_at_first() -> None:
    for p, r in cases(5, "first order", spread=0.8):
        advantage = theory.choice_kernel(p, r, 4)
        moved = theory.fixed_point(p, r, 4, 1e-3) - p
        assert moved == pytest.approx(1e-3 * p * (advantage - 1), abs=5e-6)
        settled = theory.fixed_point(p, r, 4, 1.0)
        exact = theory.fixed_point_from_advantage(p, lambda q: theory.choice_kernel(q, r, 4), 1.0)  # noqa: B023
        assert exact == pytest.approx(settled, abs=1e-9)
        constant = theory.fixed_point_from_advantage(p, advantage, 1e-3)
        assert constant == pytest.approx(p + moved, abs=5e-6)
        assert theory.fixed_point(p, r, 4, math.inf).max() > 1 - 1e-6


def test_fixed_point_from_rewards_is_that_of_the_whole_support() -> None:
    """Shares of classes by brute force: K candidates on the union of all samples, shares moved, spreads kept."""
    source, reference, lam, k = rng("classes"), np.array([0.2, 0.5, 0.3]), 1.0, 4
    rewards = [m + s * source.standard_normal(size) for m, s, size in ((1.0, 0.5, 40), (0.0, 1.0, 30), (-0.5, 2.0, 50))]
    found = theory.fixed_point_from_rewards(reference, rewards, k, lam, resamples=50)
    owner, r = np.repeat([0, 1, 2], [40, 30, 50]), np.concatenate(rewards)
    shares = reference
    for _ in range(200):
        p = (shares / np.bincount(owner))[owner]
        chosen = np.bincount(owner, p * theory.choice_kernel(p, r, k))
        shares = (reference + lam * chosen / chosen.sum()) / (1 + lam)  # the sum is an unstable direction
    assert found.shares == pytest.approx(shares, abs=1e-9)
    p = (reference / np.bincount(owner))[owner]
    assert found.advantage == pytest.approx(np.bincount(owner, p * theory.choice_kernel(p, r, k)) / reference)
    assert np.all(found.low <= found.shares) and np.all(found.shares <= found.high)
    assert np.all(found.high - found.low > 0)
    alone = theory.fixed_point_from_rewards(np.array([0.5, 0.5]), [np.array([0.5]), np.array([-0.5])], 4, 1.0)
    assert alone.shares == pytest.approx([0.651, 0.349], abs=5e-4)


@pytest.mark.slow
def test_fixed_point_agrees_with_a_simulated_loop() -> None:
    """100,000 choices among 4 candidates a round, rewards spread within classes: shares err by 1.6e-3 a round."""
    source, reference, lam = rng("loop"), np.array([0.5, 0.5]), 1.0
    rewards = [0.8 + 0.6 * source.standard_normal(400), 0.3 * source.standard_normal(400)]
    pool, shares = np.stack(rewards), reference
    for _ in range(12):
        owner = (source.random((100_000, 4)) >= shares[0]).astype(int)
        r = pool[owner, source.integers(0, 400, owner.shape)]
        best = (r + source.gumbel(size=r.shape)).argmax(axis=1)
        chosen = np.bincount(owner[np.arange(len(owner)), best], minlength=2) / len(owner)
        shares = (reference + lam * chosen) / (1 + lam)
    found = theory.fixed_point_from_rewards(reference, rewards, 4, lam, resamples=0)
    assert shares == pytest.approx(found.shares, abs=SIGMAS * 1.6e-3)


@pytest.mark.slow
def test_fixed_point_interval_covers() -> None:
    """95% intervals from 100 rewards a class hold the truth (from 100,000 quantiles) in at least 50 of 60 cases.

    Chance leaves fewer than 50 once in 5,800 at 0.95 and once in 360 at 0.93; an interval of 70% fails 98 times in 100.
    """
    quantiles = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    reference = np.array([0.5, 0.5])
    truth = theory.fixed_point_from_rewards(reference, [0.5 + quantiles, quantiles], 4, 1.0, resamples=0).shares[0]
    source, held = rng("coverage"), 0
    for i in range(60):
        rewards = [0.5 + source.standard_normal(100), source.standard_normal(100)]
        found = theory.fixed_point_from_rewards(reference, rewards, 4, 1.0, resamples=100, seed=i)
        held += found.low[0] <= truth <= found.high[0]
    assert held >= 50


def test_fixed_point_from_rewards_refuses_an_empty_class() -> None:
    with pytest.raises(ValueError, match="at least one reward"):
        theory.fixed_point_from_rewards(np.array([0.5, 0.5]), [np.array([1.0]), np.array([])], 4, 1.0)


# --- the verdict ------------------------------------------------------------------------------------------------------


def numbers(found: theory.Verdict) -> dict[str, float]:
    return {name: value for statement in found.statements for name, value in statement.numbers.items()}


def worst(found: theory.Verdict) -> str:
    return max((s.level for s in found.statements), key=["ok", "warn", "danger"].index)


def test_verdict_fully_synthetic() -> None:
    few = theory.verdict("replace", synthetic=20, real=0, rounds=20, modes=8)
    values = numbers(few)
    assert few.word == "collapses in about 14 rounds"  # log 2 / -log(1 - 1/20) = 13.5
    assert values["heterozygosity_kept"] == pytest.approx(0.95**20)
    assert values["alpha"] == theory.alpha(20)
    assert values["lost_modes"] == theory.expected_lost_modes(np.full(8, 1 / 8), 20, 20).value
    assert worst(few) == "danger"
    many = theory.verdict("replace", synthetic=10_000, real=0, rounds=10)
    assert many.word == "drifts slowly" and worst(many) == "ok"
    by_lambda = theory.verdict("replace", synthetic=20, real=500, lam=math.inf, rounds=20, modes=8)
    assert by_lambda == few


def test_verdict_real_data_in_every_round() -> None:
    found = theory.verdict("replace", synthetic=1000, real=1000, rounds=10)
    assert found.word == "stable" and found.half_life == math.inf
    assert numbers(found)["mode_loss"] == 2.0 and numbers(found)["real_share"] == 0.5
    assert "factor 2 of its mass" in found.statements[0].text
    assert numbers(theory.verdict("replace", synthetic=1000, real=1000, rounds=10, lam=0.5))["mode_loss"] == 1.5
    growing = numbers(theory.verdict("accumulate", synthetic=1000, real=1000, rounds=10))
    assert growing["mode_loss"] == 11.0  # by the counts of the last round
    assert growing["heterozygosity_kept"] == theory.accumulated_heterozygosity(1000, 10, 1000)
    fresh = numbers(theory.verdict("fresh", synthetic=500, real=500, rounds=10, lam=1.0))
    assert fresh["best_real_weight"] == pytest.approx(0.618, abs=1e-3) and fresh["error_ratio"] > 1


def test_verdict_curated() -> None:
    loop = {"synthetic": 1000, "real": 1000, "rounds": 10, "selection": (Selector("odds"),), "candidates": 4}
    above = theory.verdict("replace", **loop, lam=1 / 3)
    assert above.word == "settles away from the data" and worst(above) == "warn"
    assert any("no bound" in s.text for s in above.statements)
    below = theory.verdict("replace", **loop, lam=0.3)
    assert below.word == "stable"
    assert numbers(below)["kl_model_to_reference"] == pytest.approx(-math.log(1 - 0.3 * 3))
    rewards = np.linspace(0, 1, 101)
    measured = numbers(theory.verdict("replace", **loop, lam=0.3, rewards=rewards))
    settled = theory.fixed_point(np.full(101, 1 / 101), rewards, 4, 0.3)
    assert measured["reward_gain"] == pytest.approx(settled @ rewards - 0.5)
    assert measured["kl_model_to_reference"] == theory.kl_bound(0.3, 4, 1.0)
    only = theory.verdict("replace", **{**loop, "real": 0}, rewards=rewards)
    assert only.word == f"collapses in about {round(theory.curated_half_life(rewards, 4))} rounds"
    assert worst(only) == "danger"
    best = theory.verdict("replace", **{**loop, "selection": (Selector("best"),), "real": 0})
    assert best.word == "collapses in about 1 rounds"
    half = theory.verdict("replace", **{**loop, "selection": (Selector("top", 0.9),), "real": 0})
    assert half.half_life == pytest.approx(math.log(2) / -math.log(0.9))
    alone = theory.verdict("replace", **{**loop, "candidates": 1}, lam=1.0)  # one candidate is no choice
    assert alone.word == "stable"
    assert theory.verdict("replace", **{**loop, "selection": (Selector("independent", 0.8),)}, lam=1.0).word == "stable"


def test_verdict_biased_sampling() -> None:
    cold = theory.verdict("replace", synthetic=1000, real=0, rounds=20, temperature=0.9)
    assert cold.half_life == pytest.approx(math.log(2) / (1 / 1000 - 2 * math.log(0.9)), rel=1e-3)
    assert cold.word == "collapses in about 3 rounds" and worst(cold) == "danger"
    assert theory.verdict("replace", synthetic=1000, real=0, rounds=20, temperature=1.1).word.startswith("diverges")
    held = theory.verdict("replace", synthetic=1000, real=1000, rounds=20, temperature=0.9)
    assert numbers(held)["variance"] == theory.tempered_variance(1.0, 0.9)
    assert theory.verdict("replace", synthetic=1000, real=1000, rounds=20, temperature=1.5).word != "stable"
    guided = theory.verdict("replace", synthetic=1000, real=1000, rounds=20, guidance=2.0)
    assert any("Guidance" in s.text and s.level == "warn" for s in guided.statements)


@pytest.mark.parametrize("policy", ["replace", "accumulate", "accumulate_subsample"])
def test_every_statement_names_its_assumption(policy: str) -> None:
    for real, lam, law in itertools.product((0, 500), (None, 0.2, math.inf), ("", "odds", "top", "best")):
        found = theory.verdict(
            policy, synthetic=500, real=real, rounds=5, lam=lam, candidates=4, temperature=0.95,  # type: ignore[arg-type]
            selection=[Selector(law)] if law else [],  # type: ignore[arg-type]
        )
        assert found.statements and all(s.text and s.assumption and s.numbers for s in found.statements)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "keep"}, "keep"), ({"synthetic": 1}, "synthetic"), ({"rounds": 0}, "round"),
        ({"temperature": 0.0}, "temperature"), ({"lam": -1.0}, "λ"), ({"policy": "fresh", "real": 0}, "real data"),
    ],
)  # fmt: skip
def test_verdict_refuses_what_makes_no_loop(changes: dict[str, object], message: str) -> None:
    settings = {"policy": "replace", "synthetic": 10, "real": 10, "rounds": 2, **changes}
    with pytest.raises(ValueError, match=message):
        theory.verdict(**settings)  # type: ignore[arg-type]


# --- synthetic data for a classifier --------------------------------------------------------------------------------


def test_the_best_number_of_synthetic_samples_minimises_the_error() -> None:
    """Against trying every number; and none is best where the formula says that more is always better."""
    for n, dim, fitted, shift in ((20, 20, 200, 1.0), (50, 5, 30, 0.4), (10, 3, 10, 0.7)):
        tried = [theory.added_mean_error(n, made, dim, fitted, shift) for made in range(2000)]
        assert abs(int(np.argmin(tried)) - theory.best_synthetic_count(n, dim, fitted, shift)) <= 1
    assert theory.best_synthetic_count(20, 20, 200, 0.0) == math.inf
    assert np.all(np.diff([theory.added_mean_error(20, made, 20, 200) for made in range(0, 4000, 20)]) < 0)


def test_errors_of_a_linear_classifier_by_drawing() -> None:
    """Plain against 400,000 samples of both classes, attacked against every corner of the attacker's box."""
    draw = rng("linear")
    theta, w, threshold, epsilon = np.array([0.8, -0.3, 0.5]), np.array([1.0, 0.2, 0.7]), 0.4, 0.25
    side = draw.choice([-1.0, 1.0], 400_000)
    x = side[:, None] * theta + draw.standard_normal((400_000, 3))
    wrong = np.sign(x @ w - threshold) != side
    near(wrong.astype(float), float(theory.plain_error(w, threshold, theta)))
    corners = np.array(list(itertools.product((-epsilon, epsilon), repeat=3)))
    lost = np.zeros(len(x), dtype=bool)
    for corner in corners:
        lost |= np.sign((x + corner) @ w) != side
    near(lost.astype(float), float(theory.attacked_error(w, theta, epsilon)))


def test_no_sample_of_either_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        theory.added_mean_error(0, 0, 3)
    with pytest.raises(ValueError, match="fitted on the same samples"):
        theory.added_mean_error(0, 5, 3)

"""Tests of the coverage of intervals, the size of the paired test, and the preference likelihoods."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from upturn.statistics.intervals import bootstrap_mean, jackknife, share, subsample, subsample_masks
from upturn.statistics.paired import paired_test
from upturn.statistics.preference_models import bradley_terry, davidson, plackett_luce, winner_only

REPLICAS = 500
# 4 standard errors of a share of 0.95 over the replicas, and 2 points that the methods may be off
TOLERANCE = 4 * math.sqrt(0.95 * 0.05 / REPLICAS) + 0.02


def covered(intervals: list[tuple[float, float]], truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in intervals]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "truth"), [("normal", 40, 0.0), ("exponential", 150, 1.0), ("share", 60, 0.95), ("half", 25, 0.5)]
)
def test_bootstrap_mean_covers_the_truth_at_its_level(name, n, truth):
    draw = np.random.default_rng(1)
    make = {
        "normal": lambda: draw.standard_normal(n), "exponential": lambda: draw.exponential(size=n),
        "share": lambda: (draw.random(n) < 0.95) * 1.0, "half": lambda: (draw.random(n) < 0.5) * 1.0,
    }[name]
    found = covered([bootstrap_mean(make(), r, resamples=500) for r in range(REPLICAS)], truth)
    assert abs(found - 0.95) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("binary", [False, True])
def test_bootstrap_mean_of_clusters_covers_and_ignoring_them_does_not(binary):
    draw = np.random.default_rng(2)
    prompts, candidates = 60, 4
    groups = np.repeat(np.arange(prompts), candidates)
    truth = 0.5 if binary else 0.0
    kept, ignored = [], []
    for r in range(REPLICAS):
        values = (draw.standard_normal((prompts, 1)) * 2 + draw.standard_normal((prompts, candidates))).ravel()
        values = (values > 0) * 1.0 if binary else values
        kept.append(bootstrap_mean(values, r, resamples=400, clusters=groups))
        ignored.append(bootstrap_mean(values, r, resamples=400))
    assert abs(covered(kept, truth) - 0.95) <= TOLERANCE
    assert covered(ignored, truth) < 0.85


def test_bootstrap_mean_of_uneven_clusters_is_an_interval_for_the_mean_of_rows():
    values = np.concatenate([np.full(90, 1.0), np.arange(10) / 10 + 5])
    groups = np.concatenate([np.zeros(90, int), np.arange(1, 11)])
    low, high = bootstrap_mean(values, 1, clusters=groups)
    assert low < values.mean() < high
    assert low < 1.2  # without the cluster of 90 the mean is far off: a few clusters say little


def test_bootstrap_mean_edges():
    assert all(map(math.isnan, bootstrap_mean(np.array([]), 1)))
    assert all(map(math.isnan, bootstrap_mean(np.array([3.0]), 1)))
    assert bootstrap_mean(np.full(5, 2.5), 1) == (2.5, 2.5)
    assert bootstrap_mean(np.array([1.0, math.nan, 2.0, 4.0]), 1) == bootstrap_mean(np.array([1.0, 2.0, 4.0]), 1)
    values = np.random.default_rng(0).standard_normal(50)
    assert bootstrap_mean(values, 1) == bootstrap_mean(values, 1) != bootstrap_mean(values, 2)
    with pytest.raises(ValueError, match="3 cluster numbers for 50 rows"):
        bootstrap_mean(values, 1, clusters=np.arange(3))


def test_bootstrap_mean_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).exponential(size=400)
    theirs = bootstrap((values,), np.mean, method="BCa", n_resamples=4000, rng=np.random.default_rng(0))
    low, high = bootstrap_mean(values, 1, resamples=4000)
    error = values.std() / 20
    # both ends are quantiles of 4,000 draws: standard error 2.7 / sqrt(4000) * sd = 0.04 sd each; ours is 1% wider
    assert abs(low - theirs.confidence_interval.low) < 0.2 * error
    assert abs(high - theirs.confidence_interval.high) < 0.2 * error


def test_share_is_wilsons_interval():
    from scipy.stats import binomtest

    for successes in (0, 1, 7, 20):
        values = np.zeros(20)
        values[:successes] = 1
        theirs = binomtest(successes, 20).proportion_ci(method="wilson")
        assert share(values) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    alike = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0], 5)  # candidates that all agree are one observation
    assert share(alike, clusters=np.repeat(np.arange(8), 5)) == pytest.approx(share(alike[::5]), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mean", "standard deviation"])
def test_subsample_and_jackknife_cover_the_truth(name):
    draw = np.random.default_rng(4)
    statistic = {"mean": np.mean, "standard deviation": lambda x: x.std(ddof=1)}[name]
    truth = {"mean": 0.0, "standard deviation": 1.0}[name]
    halves, blocks = [], []
    for r in range(300):
        data = draw.standard_normal(150)
        halves.append(subsample(lambda rows, d=data: float(statistic(d[rows])), 150, r, repeats=60))
        blocks.append(jackknife(lambda rows, d=data: float(statistic(d[rows])), 150, 15))
    tolerance = 4 * math.sqrt(0.95 * 0.05 / 300) + 0.02
    assert abs(covered(halves, truth) - 0.95) <= tolerance
    assert abs(covered(blocks, truth) - 0.95) <= tolerance


@pytest.mark.slow
def test_subsample_covers_where_duplicates_break_the_bootstrap():
    """Mean distance to the nearest other row: in a bootstrap two rows in three meet their own copy, at distance 0.

    In d = 4 dimensions distances shrink as n^(-1/4) and their mean varies by n^(-1/2) of that: rate 3/4.
    """
    draw = np.random.default_rng(5)
    n, replicas = 80, 150

    def spacing(distances, rows):
        apart = distances[np.ix_(rows, rows)]
        np.fill_diagonal(apart, np.inf)
        return float(apart.min(axis=1).mean())

    values, kept, naive = [], [], []
    for r in range(replicas):
        points = draw.standard_normal((n, 4))
        distances = np.linalg.norm(points[:, None] - points[None], axis=2)
        values.append(spacing(distances, np.arange(n)))
        kept.append(subsample(lambda rows, d=distances: spacing(d, rows), n, r, repeats=40, rate=0.75))
        again = [spacing(distances, draw.integers(0, n, n)) for _ in range(40)]
        naive.append((float(np.quantile(again, 0.025)), float(np.quantile(again, 0.975))))
    truth = float(np.mean(values))
    assert abs(covered(kept, truth) - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / replicas)
    assert covered(naive, truth) < 0.05


def test_subsample_keeps_clusters_whole_and_knows_its_limits():
    groups = np.repeat(np.arange(10), 3)
    seen = []

    def count(masks):
        seen.append(masks)
        return masks.sum(axis=1).astype(float)

    subsample_masks(count, 30, 1, clusters=groups, repeats=20)
    subsets = seen[1]
    assert subsets.shape == (20, 30)
    assert (subsets.reshape(20, 10, 3).sum(axis=2) % 3 == 0).all()
    assert (subsets.sum(axis=1) == 24).all()  # 8 of 10 clusters
    assert all(map(math.isnan, subsample(lambda rows: 1.0, 2, 1)))
    assert all(map(math.isnan, jackknife(lambda rows: 1.0, 1)))


def test_subsample_width_falls_as_the_stated_rate():
    """The largest of n uniform draws has error ~ 1/n: with rate 1 the interval is that narrow, with 1/2 it is not."""
    data = np.random.default_rng(6).random(1000)
    def widths(rate: float) -> float:
        low, high = subsample(lambda rows: float(data[rows].max()), 1000, 1, fraction=0.1, rate=rate)
        return high - low
    assert widths(0.5) / widths(1.0) == pytest.approx(10**0.5, rel=1e-9)


# --- paired test -------------------------------------------------------------------------------------------------


def test_paired_p_is_the_enumeration_of_signs():
    values = np.array([0.3, -0.1, 0.7, 0.2, 0.05, -0.4, 0.9])
    signs = np.array(list(itertools.product([-1, 1], repeat=7)))
    expected = np.mean(signs @ np.abs(values) >= values.sum() - 1e-12)
    assert paired_test(values, 1).p == expected


def test_paired_random_signs_agree_with_the_exact_and_with_scipy():
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(1).standard_normal(14) + 0.4
    exact = paired_test(values, 1).p
    many = paired_test(np.concatenate([values, np.full(4, 1e-6)]), 1, resamples=40_000).p  # 18 signs: drawn, not listed
    assert many == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000) + 1e-3)
    large = np.random.default_rng(2).standard_normal(800) + 0.06
    theirs = ttest_1samp(large, 0, alternative="greater").pvalue
    assert paired_test(large, 1, resamples=40_000).p == pytest.approx(theirs, abs=0.01)


def test_paired_ties_and_equal_models():
    found = paired_test(np.zeros(50), 1)
    assert (found.p, found.difference, found.clusters) == (1.0, 0.0, 0)
    some = np.concatenate([np.zeros(40), np.ones(5)])
    assert paired_test(some, 1).p == 1 / 32 == paired_test(np.ones(5), 1).p
    assert paired_test(np.array([math.nan, math.nan]), 1).p == 1.0
    noisy = np.array([0.1 + 0.2 - 0.3, 0.3 - 0.1 - 0.2])  # rounding is not a difference
    assert paired_test(np.concatenate([noisy, [1.0, -1.0]]), 1).clusters == 2


def test_paired_counts_what_it_leaves_out():
    found = paired_test(np.array([1.0, math.nan, 2.0, 3.0]), 1)
    assert (found.pairs, found.dropped, found.difference, found.smallest) == (3, 1, 2.0, 0.125)


@pytest.mark.parametrize(("prompts", "candidates"), [(6, 1), (12, 4), (60, 4)])
def test_paired_size_under_the_null(prompts, candidates):
    """Skewless but heavy-tailed, clustered, with ties: rejects at most at the level (4 standard errors allowed)."""
    draw = np.random.default_rng(3)
    groups = np.repeat(np.arange(prompts), candidates)
    runs, level, hits = 200, 0.05, 0
    for r in range(runs):
        effect = draw.standard_t(3, (prompts, 1)) + draw.standard_normal((prompts, candidates))
        effect[np.abs(effect) < 0.3] = 0
        hits += paired_test(effect.ravel(), r, groups, resamples=399).p <= level
    assert hits / runs <= level + 4 * math.sqrt(level * (1 - level) / runs)


def test_paired_size_when_differences_are_skewed():
    draw = np.random.default_rng(4)
    hits = sum(paired_test(draw.exponential(size=120) - 1, r, resamples=399).p <= 0.05 for r in range(200))
    assert abs(hits / 200 - 0.05) <= 4 * math.sqrt(0.05 * 0.95 / 200)


# --- preferences -------------------------------------------------------------------------------------------------


def orders(rewards: list[float], ranks: list[int]) -> float:
    """Probability of ``ranks`` by listing every order of the candidates that were ranked."""
    ranked = [i for i, rank in enumerate(ranks) if rank > 0]
    total = 0.0
    for order in itertools.permutations(ranked):
        if any(ranks[a] > ranks[b] for a, b in itertools.pairwise(order)):
            continue
        weights = [math.exp(rewards[i]) for i in order]
        total += math.prod(w / sum(weights[i:]) for i, w in enumerate(weights))
    return total


RANKS = [
    [1, 2, 3, 4], [4, 1, 3, 2], [1, 2, 2, 2], [1, 1, 2, 2], [2, 1, 1, 1], [0, 2, 1, 0], [0, 1, 1, 2], [1, 1, 1, 1],
    [0, 0, 0, 0], [0, 0, 3, 0], [2, 2, 1, 3], [5, 1, 9, 9],
]


@pytest.mark.parametrize("ranks", RANKS, ids=str)
def test_plackett_luce_is_the_sum_over_orders(ranks):
    rewards = torch.tensor([[0.3, -1.2, 2.0, 0.7], [5.0, 5.0, -3.0, 0.0]], dtype=torch.float64)
    found = plackett_luce(rewards, torch.tensor([ranks] * 2), torch.ones(2, 4, dtype=torch.bool))
    expected = [math.log(orders(row.tolist(), ranks)) for row in rewards]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


def test_plackett_luce_of_mixed_batches_masks_and_long_groups():
    rewards = torch.randn(len(RANKS), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ranks = torch.tensor(RANKS)
    everyone = torch.ones_like(ranks, dtype=torch.bool)
    together = plackett_luce(rewards, ranks, everyone)
    apart = torch.cat([plackett_luce(rewards[i : i + 1], ranks[i : i + 1], everyone[:1]) for i in range(len(RANKS))])
    torch.testing.assert_close(together, apart)
    present = torch.tensor([[True, True, True, False]] * 2)
    order = torch.tensor([[1, 3, 2, 1], [2, 1, 3, 1]])
    masked = plackett_luce(rewards[:2], order, present)
    torch.testing.assert_close(masked, plackett_luce(rewards[:2, :3], order[:, :3], present[:, :3]))
    wide = torch.randn(2, 40, dtype=torch.float64)
    assert plackett_luce(wide, torch.arange(1, 41).repeat(2, 1), torch.ones(2, 40, dtype=torch.bool)).isfinite().all()
    with pytest.raises(ValueError, match="at most 12"):
        plackett_luce(wide, torch.tensor([[1, 1] + [2] * 38] * 2), torch.ones(2, 40, dtype=torch.bool))


def test_winner_only_is_a_softmax_over_all_displayed_candidates():
    rewards = torch.tensor([[0.3, -1.2, 2.0, 0.7]], dtype=torch.float64).repeat(4, 1)
    ranks = torch.tensor([[0, 0, 1, 0], [2, 2, 1, 2], [1, 0, 1, 0], [0, 0, 0, 0]])
    mask = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4, [True] * 4])
    w = rewards[0].exp()
    expected = [w[2] / w.sum(), w[2] / w[:3].sum(), (w[0] + w[2]) / w.sum(), 1.0]
    assert winner_only(rewards, ranks, mask).exp().tolist() == pytest.approx([float(e) for e in expected])


def test_two_candidates_are_one_model_three_ways():
    rewards = torch.tensor([[0.4, -0.9], [3.0, 3.5]], dtype=torch.float64)
    ranks, mask = torch.tensor([[1, 2], [1, 2]]), torch.ones(2, 2, dtype=torch.bool)
    pair = bradley_terry(rewards[:, 0], rewards[:, 1])
    torch.testing.assert_close(pair, plackett_luce(rewards, ranks, mask))
    torch.testing.assert_close(pair, winner_only(rewards, ranks, mask))
    torch.testing.assert_close(pair, davidson(rewards[:, 0], rewards[:, 1], torch.zeros(2, dtype=torch.bool), 0.0))


def test_davidson_sums_to_one_and_has_the_stated_tie_probability():
    first, second = torch.tensor([0.3, 2.0], dtype=torch.float64), torch.tensor([0.3, -1.0], dtype=torch.float64)
    yes, no = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    nu = torch.tensor(0.8, dtype=torch.float64)
    parts = [davidson(first, second, no, nu), davidson(second, first, no, nu), davidson(first, second, yes, nu)]
    torch.testing.assert_close(torch.stack(parts).exp().sum(dim=0), torch.ones(2, dtype=torch.float64))
    assert parts[2][0].exp().item() == pytest.approx(0.8 / 2.8)
    for wrong in (0.0, -1.0):
        with pytest.raises(ValueError, match="nu is"):
            davidson(first, second, yes, wrong)


@pytest.mark.parametrize("name", ["ordered", "tied", "winner", "pair", "davidson"])
def test_gradients_are_finite_differences_and_shifts_change_nothing(name):
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = torch.tensor([[True] * 4, [True, True, True, False], [True] * 4])
    ordered = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 0], [0, 0, 0, 0]])
    tied = torch.tensor([[1, 1, 2, 3], [1, 1, 1, 1], [0, 1, 1, 2]])
    tie = torch.tensor([True, False, True])
    call = {
        "ordered": lambda r: plackett_luce(r, ordered, mask), "tied": lambda r: plackett_luce(r, tied, mask),
        "winner": lambda r: winner_only(r, ordered, mask), "pair": lambda r: bradley_terry(r[:, 0], r[:, 1]),
        "davidson": lambda r: davidson(r[:, 0], r[:, 1], tie, 0.5),
    }[name]
    assert torch.autograd.gradcheck(call, (rewards,))
    torch.testing.assert_close(call(rewards), call(rewards + 7.0))
    extreme = torch.tensor([[80.0, -80.0, 0.0, 40.0]] * 3, requires_grad=True)
    call(extreme).sum().backward()
    assert extreme.grad is not None and extreme.grad.isfinite().all()


def test_differences_that_happen_to_be_shares_may_still_be_negative_in_truth() -> None:
    """One gain in 50 pairs, no loss: the interval of the difference touches 0, and equal pairs give 0 to 0."""
    from upturn.statistics.paired import paired_test

    gains = np.zeros(50)
    equal = paired_test(gains, 1)
    assert (equal.low, equal.high) == (0.0, 0.0)
    gains[0] = 1.0
    found = paired_test(gains, 1)
    assert found.low <= 0.0 < found.high

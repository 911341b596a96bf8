"""Tests of the contamination estimate: its interval covers the planted synthetic share."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.metric_cases import real
from upturn.statistics.contamination import contamination, of_features

DIMS = 6


def rows(n: int, seed: int, made: bool = False) -> np.ndarray:
    """Real rows have two clusters; synthetic ones, as after some retraining, are narrower and lean to the first."""
    rng = np.random.default_rng(seed)
    side = rng.random(n) < (0.7 if made else 0.5)
    centre = np.where(side, -1.5, 1.5)[:, None] * np.eye(DIMS)[0]
    return (centre + (0.7 if made else 1.0) * rng.standard_normal((n, DIMS))).astype(np.float32)


def planted(share: float, seed: int, n: int = 400) -> np.ndarray:
    count = round(share * n)
    return np.concatenate([rows(n - count, 10 * seed), rows(count, 10 * seed + 1, made=True)])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_interval_holds_the_planted_share(share):
    """8 seeds at 95%: fewer than 5 inside would happen once in 2,700 (binomial)."""
    found = [
        of_features(planted(share, seed), rows(400, 10 * seed + 2), rows(400, 10 * seed + 3, made=True), key=seed)
        for seed in range(8)
    ]
    assert all(one.how == "mixture" and one.n == 400 for one in found)
    assert sum(one.low <= share <= one.high for one in found) >= 5
    assert np.mean([one.high - one.low for one in found]) < 0.35
    # the mean of 8 estimates, each about a quarter of its interval's width off
    assert abs(np.mean([one.value for one in found]) - share) < 0.07


@pytest.mark.long
@pytest.mark.slow
def test_real_data_gives_no_false_alarm():
    found = [
        of_features(rows(400, 10 * seed), rows(400, 10 * seed + 2), rows(400, 10 * seed + 3, made=True), key=seed)
        for seed in range(8)
    ]
    # one-sided 2.5% each: three or more of 8 happen once in 1,200
    assert sum(one.detected for one in found) <= 2
    assert all(one.low < 0.1 for one in found)


@pytest.mark.slow
def test_a_synthetic_half_is_found_by_every_sign():
    found = of_features(planted(0.5, 1), rows(400, 12), rows(400, 13, made=True))
    assert found.detected
    assert found.signs["two_samples"].p < 1e-2 and found.signs["likelihood"].p < 1e-3
    assert found.signs["likelihood"].value > 0


@pytest.mark.slow
def test_copies_of_our_own_outputs_are_counted_exactly():
    """Nearly the same rows, as after a re-encoding: what is left of the interval is the rest's."""
    own = rows(400, 3, made=True)
    suspect = np.concatenate([rows(320, 1), own[:80] + np.float32(1e-4)])
    found = of_features(suspect, rows(400, 2), own)
    assert found.signs["copies"].value == pytest.approx(0.2)
    assert 0.2 <= found.low < 0.25
    assert found.value < 0.3
    alone = of_features(np.concatenate([suspect[:320], own[:80]]), None, own)
    assert (alone.how, alone.low, alone.high) == ("copies", pytest.approx(0.2), 1.0)


def test_without_own_samples_it_is_a_bound():
    """The total variation of what is planted: no more than its share, whatever it is."""
    share = 0.5
    far = np.concatenate([rows(200, 1), rows(200, 2) + np.float32(8)])
    found = of_features(far, rows(400, 3), None)
    assert found.how == "two samples" and math.isnan(found.value)
    assert 0.3 < found.low <= share and found.high == 1.0  # certainly different, 200 rows to test on


@pytest.mark.slow
def test_synthetic_data_of_another_model_is_no_mixture_of_ours():
    """Where the scores contradict the assumption, it says so and falls back on the bound."""
    other = np.concatenate([rows(300, 1), 0.05 * rows(300, 2)])
    found = of_features(other, rows(600, 3), rows(600, 4, made=True))
    assert found.how == "two samples" and "no mixture" in found.note
    assert found.low <= 0.5


@pytest.mark.slow
def test_a_model_s_likelihood_counts_as_a_feature_and_as_a_sign():
    """Rows whose features say nothing: only the model knows."""
    rng = np.random.default_rng(0)
    hidden = {name: rng.standard_normal(300) for name in ("suspect", "trusted", "own")}
    hidden["own"] += 2
    hidden["suspect"][:150] += 2
    parts = {name: real(np.full((300, 1), i, np.float32)) for i, name in enumerate(hidden)}

    def embed(samples):
        return np.random.default_rng(int(samples.content[0, 0])).standard_normal((300, 3)).astype(np.float32)

    def log_likelihood(samples):
        return list(hidden.values())[int(samples.content[0, 0])]

    found = contamination(*parts.values(), embed, log_likelihood=log_likelihood)
    assert found.low <= 0.5 <= found.high and found.detected
    # of two means of 300, half of them 2 higher: the difference is 1, its error 0.1
    assert found.signs["likelihood"].value == pytest.approx(1.0, abs=0.4)


@pytest.mark.parametrize("few", ["suspect", "trusted", "own"])
def test_too_little_data_gives_a_reason_and_no_exception(few):
    sizes = {"suspect": 100, "trusted": 100, "own": 100} | {few: 10}
    parts = [rows(n, i, made=name == "own") for i, (name, n) in enumerate(sizes.items())]
    found = of_features(*parts)
    assert found.high == 1.0 and "are needed" in found.note
    assert found.as_json()["value"] is None
    nothing = contamination(real(np.zeros((0, 2))), None, None, lambda samples: samples.content)
    assert (nothing.low, nothing.high, nothing.how) == (0.0, 1.0, "nothing")

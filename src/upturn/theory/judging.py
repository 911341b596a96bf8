"""Imperfect judges: the accuracy that curation needs, and where curated rounds stall or reverse."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from upturn.types import Array

# A verifier of two kinds of sample, good and bad, that errs at stated rates.


def verified_share(share: Array | float, false_positive: float, false_negative: float) -> Array:
    """(…) share of good samples among those that a verifier keeps: s(1-b) / (s(1-b) + (1-s)a), Bayes' rule.

    a is the chance that it keeps a bad sample, b that it drops a good one. Odds are multiplied by (1-b)/a.
    """
    good = np.asarray(share) * (1 - false_negative)
    return np.asarray(good / (good + (1 - np.asarray(share)) * false_positive))


def verified_rounds(
    share: float, false_positive: float, false_negative: float, rounds: int, *, lam: float = math.inf,
    slip: float = 0.0,
) -> float:
    """Share of good samples after t rounds of s' = (s_0 + λ(1-δ)V(s))/(1+λ), V the verifier's choice, δ = ``slip``.

    The learner changes the share δ of good samples into bad ones: its own error in each round. λ = inf without slip
    multiplies the odds by ((1-b)/a)^t. Infinitely many samples. Derived, checked.
    """
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    now = share
    for _ in range(rounds):
        kept = float(verified_share(now, false_positive, false_negative))
        now = w * share + (1 - w) * (1 - slip) * kept
    return now


def verified_limit(
    share: float, false_positive: float, false_negative: float, lam: float = math.inf, slip: float = 0.0
) -> float:
    """Where :func:`verified_rounds` settles: the root above 0 of (1+λ)(t-a)s² + ((1+λ)a - s_0(t-a) - λ(1-δ)t)s = s_0a.

    t = 1 - b is the chance that a good sample is kept. Nothing real: s = ((1-δ)L - 1)/(L - 1) with L = t/a > 1/(1-δ),
    else 0: a judge whose odds do not exceed the learner's errors preserves nothing. Derived, checked.
    """
    t, a = 1 - false_negative, false_positive
    if math.isinf(lam):
        if t == a:
            return share if slip == 0 else 0.0
        return min(max(((1 - slip) * t - a) / (t - a), 0.0), 1.0) if t > a else 0.0
    square, line = (1 + lam) * (t - a), (1 + lam) * a - share * (t - a) - lam * (1 - slip) * t
    root = math.sqrt(line**2 + 4 * square * share * a)
    return (root - line) / (2 * square) if line < 0 < square else 2 * share * a / (line + root)


def judge_needed(share: float, slip: float) -> float:
    """The least odds L = (1-b)/a at which curated rounds do not end below real data: (1-s_0)/(1-s_0-δ), at any λ.

    inf where the learner spoils as much as there is to gain (δ ≥ 1 - s_0). From :func:`verified_limit` at s = s_0.
    """
    return (1 - share) / (1 - share - slip) if slip < 1 - share else math.inf


# A judge that scores quality with noise or bias: Gaussian samples, the best fraction kept, refitted.


class Selected(NamedTuple):
    """A Gaussian fitted to what was kept: ``mean`` (d,), ``covariance`` (d, d)."""

    mean: Array
    covariance: Array


def selection_intensity(fraction: float) -> tuple[float, float]:
    """(i, k): the mean of a standard normal's best fraction, φ(z)/f, and the share of variance lost, i(i-z).

    z is the quantile above which the fraction f lies (Falconer & Mackay 1996, "Quantitative Genetics", chapter 11).
    """
    from scipy.special import ndtri

    z = float(-ndtri(fraction))
    intensity = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / fraction
    return intensity, intensity * (intensity - z)


def select_best(mean: Array, covariance: Array, likes: Array, noise: float, fraction: float) -> Selected:
    """Moments of the best ``fraction`` by the score c·x + N(0, ν²), x ~ N(μ, Σ): the breeder's equation.

    μ' = μ + Σc i/√V,  Σ' = Σ - Σccᵀ Σ k/V,  V = cᵀΣc + ν². Noise divides the gain by √(1 + ν²/cᵀΣc). Checked.
    """
    intensity, lost = selection_intensity(fraction)
    towards = covariance @ likes
    total = float(likes @ towards) + noise**2
    return Selected(
        mean + towards * intensity / math.sqrt(total), covariance - np.outer(towards, towards) * lost / total
    )


def selected_rounds(
    dim: int, likes: Array, noise: float, fraction: float, rounds: int, lam: float = math.inf
) -> list[Selected]:
    """The Gaussian after each of t rounds from N(0, I), refitted to the best fraction and real data, weights λ : 1.

    Infinitely many samples. Checked.
    """
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    now = Selected(np.zeros(dim), np.eye(dim))
    path = []
    for _ in range(rounds):
        kept = select_best(now.mean, now.covariance, likes, noise, fraction)
        mean = (1 - w) * kept.mean
        second = w * np.eye(dim) + (1 - w) * (kept.covariance + np.outer(kept.mean, kept.mean))
        now = Selected(mean, second - np.outer(mean, mean))
        path.append(now)
    return path


def gold(state: Selected, cost: float) -> float:
    """E[x_1 - (c/2) x_2²]: the true objective, where a biased judge also rewards the second coordinate."""
    return float(state.mean[0] - cost / 2 * (state.mean[1] ** 2 + state.covariance[1, 1]))


def tilted_normal(rounds: float, likes: Array) -> Selected:
    """`choice` with K → ∞ under a reward c·x from N(0, I): the mean moves by c a round, the covariance stays."""
    return Selected(rounds * np.asarray(likes, dtype=np.float64), np.eye(len(likes)))


def turning_round(bias: float, cost: float) -> float:
    """1/(c b²): the round at which :func:`gold` of :func:`tilted_normal` is greatest, the judge rewarding x_1 + b x_2.

    gold_t = t - (c/2)(b²t² + 1): the judge's reward continues to rise. Derived, checked.
    """
    return 1 / (cost * bias**2) if cost * bias else math.inf

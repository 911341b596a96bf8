"""Mean and variance of what is fitted again and again to a blend of samples: exact recursions, a coordinate at a time.

They hold for any learner that keeps the first two moments of what it is trained on: a Gaussian, a Gaussian mixture
after any number of EM steps, a kernel density (which adds its kernel's variance). The data may have any distribution.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from upturn.theory.gaussian import Division


class Moments(NamedTuple):
    """Of the model after t rounds: E[σ_t²] of a coordinate, kernel not included, and E[(μ_t-μ_0)²], if σ_0² = 1."""

    variance: float
    drift: float


def mixed_moments(
    real: int, synthetic: int, lam: float, rounds: int, *, fresh: bool = False, temperature: float = 1.0,
    kernel: float = 0.0, division: Division = "n",
) -> Moments:
    """Fitted on ``real`` real samples and ``synthetic`` ones of the model before, weights 1 : λ; λ = inf is replace.

    The real ones are the same in every round, or new draws where ``fresh``. Round 1 is the fit on real samples alone.
    ``temperature`` τ scales deviations in sampling, ``kernel`` h² is added to the variance sampled from; division
    "n-1" divides by 1 - Σw² (the sum of squared weights), which is n - 1 over n for equal ones. With
    w = 1/(1+λ), v = τ²s + h², n real and m synthetic:

        V' = w²/n + 2w(1-w)C + (1-w)²(V + v/m),   C' = w/n + (1-w)C (0 where fresh),   s' = w + (1-w)(v + V) - V'

    V of the mean, C its covariance with the real sample's mean, s of the fit. Derived in docs/theory.md, checked.
    """
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    unbiased = division == "n-1"
    variance = 1.0 if unbiased else 1 - 1 / real
    drift = shared = 1 / real
    correction = 1 - w**2 / real - (1 - w) ** 2 / synthetic if unbiased else 1.0
    for _ in range(rounds - 1):
        sampled = temperature**2 * variance + kernel
        before = drift
        cross = 0.0 if fresh else shared
        drift = w**2 / real + 2 * w * (1 - w) * cross + (1 - w) ** 2 * (before + sampled / synthetic)
        variance = (w + (1 - w) * (sampled + before) - drift) / correction
        shared = w / real + (1 - w) * shared
    return Moments(variance, drift)


def accumulated_moments(
    n: int, rounds: int, *, subsample: int | None = None, temperature: float = 1.0, kernel: float = 0.0,
    division: Division = "n",
) -> Moments:
    """Fitted on all samples so far, n a round, the first n real; or on ``subsample`` draws of them, with replacement.

    With the pool's S_k (divided by its size) and V_k of its mean, m draws, c = 1 - 1/m (1 with division by m - 1),
    s = cS + 0 and v = τ²s + h² (without a subsample S/m = 0 and s is S, or S nk/(nk-1)):

        V' = V + (S/m + v/n)/(k+1)²,   S' = (kS + S/m + v)/(k+1) - (S/m + v/n)/(k+1)²

    The model of round k has variance s and drift V + S/m. Derived in docs/theory.md, checked; at τ = 1, h = 0 without a
    subsample this is :func:`accumulated_variance`.
    """
    pool, mean = 1 - 1 / n, 1 / n
    for k in range(1, rounds + 1):
        if subsample is None:
            again, fitted = 0.0, pool * (n * k / (n * k - 1) if division == "n-1" else 1.0)
        else:
            again, fitted = pool / subsample, pool * (1 - 1 / subsample if division == "n" else 1.0)
        if k == rounds:
            break
        sampled = temperature**2 * fitted + kernel
        moved = (again + sampled / n) / (k + 1) ** 2
        pool = (k * pool + again + sampled) / (k + 1) - moved
        mean += moved
    return Moments(fitted, mean + again)


def adaptive_kernel(n: int, dim: int = 1) -> float:
    """Silverman's rule of thumb as a share of the sample's variance: h² = (4/((d+2)n))^{2/(d+4)} s.

    Silverman 1986, "Density Estimation for Statistics and Data Analysis", equation 4.14.
    """
    return float((4 / ((dim + 2) * n)) ** (2 / (dim + 4)))

"""One Gaussian, retrained on its own samples: n a round, t rounds, from N(μ_0, Σ_0)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from upturn.types import Array

Division = Literal["n", "n-1"]

# Replace: fitted on the n samples of the model before.


def alpha(n: int) -> float:
    """Mean of the sample standard deviation (division by n - 1) of n draws from N(0, 1).

    α(n) = √(2/(n-1)) Γ(n/2) / Γ((n-1)/2): the mean of a chi variable. Bertrand et al., ICLR 2024. Checked.
    """
    if n > 1000:  # the two log-gammas would cancel; the next term of the series is of order n⁻⁴
        return 1 - 1 / (4 * n) - 7 / (32 * n**2) - 19 / (128 * n**3)
    return math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))


def mean_sigma(n: int, rounds: int, sigma: float = 1.0) -> float:
    """E[σ_t] = α(n)^t σ_0, division by n - 1, along any fixed direction. Bertrand et al. 2024. Checked."""
    return alpha(n) ** rounds * sigma


def log_variance_step(n: int, division: Division = "n-1") -> float:
    """E[log σ²_{t+1} - log σ²_t] = ψ((n-1)/2) + log(2/divisor): the log of a chi-square over its divisor. Checked."""
    from scipy.special import digamma

    return float(digamma((n - 1) / 2)) + math.log(2 / _divisor(n, division))


def mean_log_variance(n: int, rounds: int, variance: float = 1.0, division: Division = "n-1") -> float:
    """E[log σ_t²], the typical path: it falls in every round although E[σ_t²] may stay. Checked."""
    return math.log(variance) + rounds * log_variance_step(n, division)


def mean_log_det(n: float, dim: int, rounds: int, log_det: float = 0.0, division: Division = "n-1") -> float:
    """E[log det Σ_t] = log det Σ_0 + t Σ_{i≤d} (ψ((n-i)/2) + log(2/divisor)), n > d (Bartlett). Checked."""
    from scipy.special import digamma

    step = float(sum(digamma((n - i) / 2) for i in range(1, dim + 1))) + dim * math.log(2 / _divisor(n, division))
    return log_det + rounds * step


def mean_variance(n: int, rounds: int, variance: float = 1.0, division: Division = "n-1") -> float:
    """E[σ_t²]: (1 - 1/n)^t σ_0² with division by n, σ_0² with n - 1 (though σ_t → 0 almost surely). Checked."""
    return variance * ((n - 1) / _divisor(n, division)) ** rounds


def mean_drift(n: int, rounds: int, trace: float = 1.0, division: Division = "n-1") -> float:
    """E‖μ_t - μ_0‖²: (1 - (1-1/n)^t) tr Σ_0 with division by n, (t/n) tr Σ_0 with n - 1. Checked."""
    return trace * (rounds / n if division == "n-1" else 1 - (1 - 1 / n) ** rounds)


def log_variance_spread(n: int, rounds: int) -> float:
    """Var[log σ_t²] = t ψ₁((n-1)/2). A test of the mean of σ_t means something only while a quarter of it is ≤ 1,
    of the mean of σ_t² while it is ≤ 1 itself: beyond, rare replicas carry the mean. Checked.
    """
    from scipy.special import polygamma

    return rounds * float(polygamma(1, (n - 1) / 2))


def temperature_shrink(temperature: float, rounds: int) -> float:
    """What sampling at temperature τ leaves of a Gaussian's variance before estimation: τ^{2t}, samples scaled by τ."""
    return float(temperature ** (2 * rounds))


def _divisor(n: float, division: Division) -> float:
    return n if division == "n" else n - 1


# Accumulate: n new samples a round, fitted on everything so far; the first n are real.


def accumulated_variance(n: int, rounds: int, variance: float = 1.0, division: Division = "n") -> float:
    """E[Σ_t] / Σ_0: Π_{k≤t} (1 - 1/(nk²)) with division by the count; Π_{2≤k≤t} (1 - 1/(k(nk-1))) by the count - 1.

    The first n samples are real. Checked (the second product is derived in docs/theory.md).
    """
    return variance * float(np.prod(_accumulate_factors(n, rounds, division)))


def accumulated_drift(n: int, rounds: int, trace: float = 1.0, division: Division = "n") -> float:
    """E‖μ_t - μ_0‖² = Σ_{k≤t} tr E[Σ_{k-1}] / (nk²); with division by the count this is tr Σ_0 - tr E[Σ_t]. Checked."""
    before = np.concatenate([[1.0], np.cumprod(_accumulate_factors(n, rounds, division))[:-1]])
    return trace * float(np.sum(before / (n * np.arange(1, rounds + 1) ** 2.0)))


def accumulated_limit(n: int) -> float:
    """lim E[Σ_t] / Σ_0 = sin(π/√n) / (π/√n), division by the count (Euler's product for the sine). Checked."""
    return math.sin(math.pi / math.sqrt(n)) / (math.pi / math.sqrt(n))


def _accumulate_factors(n: int, rounds: int, division: Division) -> Array:
    k = np.arange(1, rounds + 1, dtype=np.float64)
    if division == "n":
        return 1 - 1 / (n * k**2)
    return np.where(k == 1, 1.0, 1 - 1 / (k * np.maximum(n * k - 1, 1)))

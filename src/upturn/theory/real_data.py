"""Real data in every round, λ synthetic : real, nothing curated."""

from __future__ import annotations

import math

import numpy as np

from upturn.types import Array


def contraction_rate(lam: float, concavity: float = 1.0, mismatch: float = 0.0) -> float:
    """ρ with ‖θ_t - θ*‖ = O(ρ^t): λ(α+Lε) / (α+λ(α-Lε)); λ/(1+λ) at ε = 0. inf where there is no bound.

    ``concavity`` α of the expected log-likelihood at θ*, ``mismatch`` Lε (Hessian's Lipschitz constant times
    W1(p_θ*, p_data)). Needs Lε < α, λ < α/(2Lε), infinite samples, a start near θ*. Bertrand et al. 2024; re-derived:
    an upper bound on :func:`contraction_rate_sharp`. Checked.
    """
    if mismatch >= concavity or 2 * mismatch * lam >= concavity:
        return math.inf
    return lam * (concavity + mismatch) / (concavity + lam * (concavity - mismatch))


def contraction_rate_sharp(lam: float, concavity: float = 1.0, mismatch: float = 0.0) -> float:
    """λb/(1+λb), b = 1 + Lε/α: the same map's spectral radius is at most this, and below 1 at any λ and ε.

    The Jacobian at θ* is (A+λB)⁻¹λB, A = -E_data[∇² log p], B the Fisher information; its eigenvalues are λb/(1+λb)
    over the eigenvalues b ≥ 0 of A⁻¹B. So near θ* the condition on λ is not needed (docs/theory.md). Checked.
    """
    b = 1 + mismatch / concavity
    return lam * b / (1 + lam * b)


def mean_parameter(data: Array, start: Array, lam: float, rounds: int) -> Array:
    """(d,) mean parameters after t rounds of m' = (m_data + λm)/(1+λ).

    Any exponential family, infinite samples: maximum likelihood matches mean parameters exactly. Checked.
    """
    left = (lam / (1 + lam)) ** rounds
    return np.asarray(np.asarray(data) + left * (np.asarray(start) - np.asarray(data)))


def stationary_error(n: int, lam: float) -> float:
    """Where E‖m_t - m_data‖² settles, in variances of one sample: λ²/((1+2λ) n), fixed real data. Derived, checked."""
    return lam**2 / ((1 + 2 * lam) * n)


def tempered_variance(lam: float, temperature: float) -> float:
    """What is left of a Gaussian's variance for good, sampled at temperature τ: 1/(1+λ(1-τ²)). Derived, checked."""
    return 1 / (1 + lam * (1 - temperature**2))


def best_real_weight(k: float) -> float:
    """(√(k²+4k) - k)/2: the weight of real data with the least error of a mean, fresh real each round, k = real :
    synthetic in size; 0.618 at k = 1. Checked against the numerical minimum of :func:`fresh_error`.
    """
    return (math.sqrt(k * k + 4 * k) - k) / 2


def fresh_error(weight: float, k: float) -> float:
    """Where n E‖m - m_data‖² settles with n fresh real and n/k synthetic a round: (w²+k(1-w)²)/(w(2-w)). Checked."""
    return (weight**2 + k * (1 - weight) ** 2) / (weight * (2 - weight))

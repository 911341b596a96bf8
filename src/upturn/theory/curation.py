"""Curation: of K candidates one is chosen with probability softmax(r). An ideal learner on a finite support."""

from __future__ import annotations

import math

import numpy as np

from upturn.types import Array

_STEP = 0.25  # of log u; the trapezoid rule then errs below 1e-14 (its Fourier tail is |Γ(1 + 2πi/0.25)|)
_LEFT, _RIGHT = -37.0, 4.0  # e^-37 = 1e-16, and exp(-e^4) = 2e-24


def _nodes(reward_range: float) -> tuple[Array, Array]:
    """(Q,) nodes u and weights of ∫_0^∞ du, evenly spaced in log u, for rewards shifted to a maximum of 0."""
    u = np.exp(np.arange(_LEFT, min(reward_range, 600.0) + _RIGHT, _STEP))
    return u, u * _STEP


def laplace(r: Array) -> tuple[Array, Array, Array]:
    """(…, m) e^{r}, (…, m, Q) exp(-u e^{r}), (Q,) weights; each case's rewards shifted to a maximum of 0 (same H)."""
    rewards = np.asarray(r, dtype=np.float64)
    shifted = rewards - rewards.max(axis=-1, keepdims=True)
    if not np.all(np.isfinite(shifted)):
        raise ValueError("rewards must be finite")
    u, weights = _nodes(float(-shifted.min()))
    fitness = np.exp(shifted)
    return fitness, np.exp(-fitness[..., None] * u), weights


_BEST_OF_HALVES = 4.3110704


def choice_kernel(p: Array, r: Array, candidates: float, missing: float = 0.0) -> Array:
    """(…, m) H(x) = E[K e^{r(x)} / (e^{r(x)} + Σ_{i<K} e^{r(x_i)})], the others drawn from p: how much x is multiplied.

    p, r (…, m) on finite supports, one case or many. 1/(a+S) = ∫ e^{-u(a+S)} du turns the expectation into one integral
    over (Σp e^{-u e^r})^{K-1}, here by the trapezoid rule in log u. Ferbach et al., NeurIPS 2024. Checked by
    enumeration. Where each candidate is ``missing`` with this probability (an earlier curator dropped it), it adds 0
    to the sum S: the factor of each other candidate is missing + (1 - missing) Σp e^{-u e^r}.
    """
    fitness, decay, weights = laplace(r)
    shares = np.asarray(p, dtype=np.float64)
    each = (shares[..., None, :] @ decay)[..., 0, :]
    others = (missing + (1 - missing) * each if missing else each) ** (candidates - 1)
    return np.asarray(candidates * fitness * (decay @ (weights * others)[..., None])[..., 0])


def curated_update(p: Array, r: Array, candidates: float) -> Array:
    """(…, m) p·H, curated only, an ideal learner."""
    chosen = np.asarray(p) * choice_kernel(p, r, candidates)
    return np.asarray(chosen / chosen.sum(axis=-1, keepdims=True))


def mixed_update(p: Array, reference: Array, r: Array, candidates: int, lam: float | Array) -> Array:
    """(…, m) (p_ref + λ p·H)/(1+λ): one round with real data, an ideal learner. λ = inf is curated only."""
    return mix(np.asarray(reference), curated_update(p, r, candidates), lam)


def tilted(p: Array, r: Array, rounds: float = 1.0) -> Array:
    """(…, m) ∝ p e^{t r}: K → ∞ after t rounds; KL-regularised reward maximisation with β = 1/t. Checked."""
    logit = np.log(np.asarray(p)) + rounds * np.asarray(r)
    weight = np.exp(logit - logit.max(axis=-1, keepdims=True))
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True))


def growth_bound(p: Array, r: Array, candidates: int) -> Array:
    """(…) E_{t+1}[e^r] ≥ E_t[e^r] + ((K-1)/K) Var_t[e^r] / e^{r*}, curated only, r ≤ r*. Ferbach et al. Checked."""
    mean, variance, top = _moments(p, r)
    return np.asarray(mean + (candidates - 1) / candidates * variance / top)


def growth_bound_real(reference: Array, r: Array, candidates: int, lam: float | Array) -> Array:
    """(…) E_t[e^r] ≥ E_ref[e^r] + λ/(1+λ)³ (K-1) Var_ref[e^r] / (K e^{r*}) for t ≥ 1 from p_0 = p_ref.

    Real data in every round. Ferbach et al. 2024. Checked.
    """
    mean, variance, top = _moments(reference, r)
    share = np.asarray(lam) / (1 + np.asarray(lam)) ** 3
    return np.asarray(mean + share * (candidates - 1) / candidates * variance / top)


def _moments(p: Array, r: Array) -> tuple[Array, Array, Array]:
    """(…) each: mean and variance of e^r, and e^{r*}."""
    fitness = np.exp(np.asarray(r, dtype=np.float64))
    mean = np.sum(np.asarray(p) * fitness, axis=-1)
    variance = np.sum(np.asarray(p) * (fitness - mean[..., None]) ** 2, axis=-1)
    return mean, variance, fitness.max(axis=-1)


def kl_bound(lam: float, candidates: float, reward_range: float = math.inf) -> float:
    """KL(p_t‖p_ref) ≤ -log(1 - λ(M-1)) while λ(M-1) < 1, else inf: how far the model may pile up on what is rewarded.

    M = K bounds the selection of one in K of any kind (Ferbach et al.); rewards within ``reward_range`` nats give the
    smaller M = K/(1+(K-1)e^{-range}) of the `choice` curator. From p_0 = p_ref, an ideal learner. Checked.
    """
    amplification = candidates / (1 + (candidates - 1) * math.exp(-reward_range))
    margin = 1 - lam * (amplification - 1)
    return -math.log(margin) if margin > 0 else math.inf


def mode_loss_bound(lam: float) -> float:
    """p_t ≥ p_ref/(1+λ) in every round with real data, under any curation: the largest loss factor is 1 + λ. Checked.

    So KL(p_ref‖p_t) ≤ log(1+λ).
    """
    return 1 + lam


def mix(reference: Array, chosen: Array, lam: float | Array) -> Array:
    """(…, m) (p_ref + λ p)/(1+λ), λ one number or (…); λ = inf leaves nothing of the reference."""
    share = 1 / (1 + np.asarray(lam, dtype=np.float64)[..., None])
    return np.asarray(share * reference + (1 - share) * chosen)


def best_of_n_half_life(candidates: float) -> float:
    """Rounds until keeping the best of K alone halves the effective number exp(entropy), rewards all distinct.

    t rounds keep the best of m = K^t of the start: KL(p_t‖p_0) = log m - 1 + 1/m, which is log 2 at m = 4.311. Checked.
    """
    return math.log(_BEST_OF_HALVES) / math.log(candidates) if candidates > 1 else math.inf


def tilt_error(p: Array, r: Array, candidates: int) -> Array:
    """(…, m) p·H - p e^r/E[e^r] to first order in 1/K: (p f/μ) ((μ-f)/μ + v/μ²)/K, f = e^r, μ and v its moments.

    From E[1/(f+S)] with S the sum of K - 1 others. The next order is 1/K². Derived in docs/theory.md, checked.
    """
    fitness = np.exp(np.asarray(r, dtype=np.float64))
    mean, variance, _ = (part[..., None] for part in _moments(p, r))
    return np.asarray(np.asarray(p) * fitness / mean * ((mean - fitness) / mean + variance / mean**2) / candidates)

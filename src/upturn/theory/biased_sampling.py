"""Sampling that is sharper than the model: temperature and top-p of a discrete distribution, round after round."""

from __future__ import annotations

import math

import numpy as np

from upturn.theory.discrete import heterozygosity
from upturn.types import Array

_ROUNDING = 1e-12  # of a sum of shares: ten shares of 0.1 reach 0.9 with the ninth


def tempered_shares(p: Array, temperature: float, rounds: int = 1) -> Array:
    """(m,) ∝ p^{1/τ^t}: each round sampled at temperature τ and learned perfectly, so exponents multiply. Checked."""
    with np.errstate(divide="ignore"):
        logit = np.log(np.asarray(p, dtype=np.float64)) * temperature**-rounds
    weight = np.exp(logit - logit.max())
    return np.asarray(weight / weight.sum())


def nucleus(p: Array, top_p: float) -> Array:
    """(…, m) the most probable samples whose mass reaches ``top_p``, renormalised (Holtzman et al. 2020, eq. 2)."""
    shares = np.asarray(p, dtype=np.float64)
    if top_p >= 1:
        return np.asarray(shares / shares.sum(axis=-1, keepdims=True))
    order = np.argsort(-shares, axis=-1, kind="stable")
    ranked = np.take_along_axis(shares, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    kept = np.where(before < top_p - _ROUNDING, ranked, 0.0)
    out = np.zeros_like(shares)
    np.put_along_axis(out, order, kept, axis=-1)
    return np.asarray(out / out.sum(axis=-1, keepdims=True))


def nucleus_rounds(p: Array, top_p: float, rounds: int) -> Array:
    """(m,) after t rounds of top-p: the nucleus of a nucleus is smaller, until one is left or none can go. Checked."""
    now = np.asarray(p, dtype=np.float64)
    for _ in range(rounds):
        now = nucleus(now, top_p)
    return now


def gaussian_half_life(n: int, temperature: float) -> float:
    """Rounds until E[σ_t²] is halved, division by n: log 2 / -log(τ²(1-1/n)); inf where it never is. Checked."""
    rate = -(2 * math.log(temperature) + math.log1p(-1 / n))
    return math.log(2) / rate if rate > 0 else math.inf


def diversity_half_life(p: Array, temperature: float = 1.0, top_p: float = 1.0, most: int = 10_000) -> float:
    """Rounds until 1 - Σp² is halved by sampling alone (no finite sample), top-p after temperature; inf if never."""
    now, target = np.asarray(p, dtype=np.float64), heterozygosity(p) / 2
    for t in range(1, most + 1):
        after = nucleus(tempered_shares(now, temperature), top_p)
        if heterozygosity(after) <= target:
            return float(t)
        if np.array_equal(after, now):
            break
        now = after
    return math.inf

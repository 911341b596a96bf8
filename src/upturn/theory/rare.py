"""Rare values: the probability that a learner of counts loses one, round by round."""

from __future__ import annotations

import math

import numpy as np

from upturn.types import Array


def missed(counts: Array, rounds: int, *, lam: float = math.inf) -> Array:
    """(…) the probability that a value with c of n real draws is not among the n draws of model ``rounds``.

    Model 1 is fitted on the n real draws; each later one on these and the n draws of the model before, weights 1 : λ
    (inf: on the latter alone). n → ∞ with c fixed: counts are Poisson, X' ~ Poisson(w c + (1-w) X), w = 1/(1+λ), so
    the chance is e^{-ac} with a from g = 1, then, backwards in rounds, a += w g, g = 1 - e^{-(1-w)g}, and a += g last:
    for λ = inf a branching process that dies out (Watson & Galton 1875).
    Derived in docs/guides/lab-real-data.md, checked.
    """
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    rate, gain = 0.0, 1.0
    for _ in range(rounds - 1):
        rate += w * gain
        gain = -math.expm1(-(1 - w) * gain)
    return np.exp(-(rate + gain) * np.asarray(counts, dtype=np.float64))


def missed_accumulated(counts: Array, rounds: int, *, subsample: bool = False) -> Array:
    """(…) the same where each model is fitted on all draws so far, the n real ones first.

    With C_t of the pool's t n draws, C_{t+1} = C_t + Poisson(C_t/t): the chance is e^{-sc} with s = 1/t, then, from
    k = t-1 down to 1, s += (1 - e^{-s})/k. ``subsample``: on n draws of the pool, f(s) = 1 - e^{-(1-e^{-s})} for
    1 - e^{-s}. Derived in docs/guides/lab-real-data.md, checked.
    """
    def heard(s: float) -> float:
        once = -math.expm1(-s)
        return -math.expm1(-once) if subsample else once

    s = heard(math.inf) / rounds
    for k in range(rounds - 1, 0, -1):
        s += heard(s) / k
    return np.exp(-s * np.asarray(counts, dtype=np.float64))

"""A discrete distribution, relearned from n of its own draws: what is lost to chance alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from upturn import seeds
from upturn.types import Array


def heterozygosity(shares: Array) -> float:
    """1 - Σp²: the chance that two draws differ."""
    return float(1 - np.sum(np.asarray(shares) ** 2))


def mean_heterozygosity(n: int, rounds: int, start: float = 1.0) -> float:
    """E[1 - Σp²]_t = (1 - 1/n)^t (1 - Σp²)_0, multinomial resampling (replace). Wright 1931. Checked."""
    return start * (1 - 1 / n) ** rounds


def accumulated_heterozygosity(
    n: int, rounds: int, real: int, start: float = 1.0, subsample: int | None = None
) -> float:
    """E[1 - Σq²] of the pool after t rounds that each add n samples to ``real`` first ones.

    Π_k (1 - c n²/(real + kn)²), c = 1/n where the model is the whole pool, c = 1 - (1-1/n)(1-1/m) where it is fitted
    on m draws of the pool (accumulate-subsample): either product stays above 0. Derived in docs/theory.md, checked.
    """
    c = 1 / n if subsample is None else 1 - (1 - 1 / n) * (1 - 1 / subsample)
    pool = real + n * np.arange(1, rounds + 1, dtype=np.float64)
    return start * float(np.prod(1 - c * n**2 / pool**2))


class Estimate(NamedTuple):
    """A number and its standard error, 0 where it is exact."""

    value: float
    standard_error: float


_EXACT_STATES = 2000  # the chain of one mode's count has n + 1 states; beyond, a simulation is cheaper


def expected_lost_modes(shares: Array, n: int, rounds: int, *, replicas: int = 4000, seed: int = 0) -> Estimate:
    """Modes that a perfect learner loses by drift alone: n draws a round, replace (Wright–Fisher).

    Exact up to n = 2,000 (a mode's count is a Markov chain of its own: binomial), simulated with its standard error
    beyond. ``shares`` (k,) at the start. Checked against a direct simulation.
    """
    p = np.asarray(shares, dtype=np.float64)
    if rounds <= 0:
        return Estimate(float(np.sum(p == 0)), 0.0)
    if n <= _EXACT_STATES:
        gone = np.zeros(n + 1)
        gone[0] = 1.0
        if rounds > 1:
            chain = _binomial(n, np.arange(n + 1) / n)
            for _ in range(rounds - 1):
                gone = chain @ gone
        return Estimate(float(np.sum(_binomial(n, p) @ gone)), 0.0)
    rng = seeds.generator(seeds.key("lost modes", seed))
    current = np.tile(p, (replicas, 1))
    for _ in range(rounds):
        current = rng.multinomial(n, current) / n
    lost = np.sum(current == 0, axis=1)
    spread = max(float(lost.var()), len(p) / replicas)  # none seen: not more than about one in all replicas
    return Estimate(float(lost.mean()), math.sqrt(spread / replicas))


def _binomial(n: int, p: Array) -> Array:
    """(len(p), n + 1) probabilities of 0 … n."""
    from scipy.special import gammaln, xlog1py, xlogy

    counts = np.arange(n + 1)[None, :]
    share = np.asarray(p, dtype=np.float64)[:, None]
    ways = gammaln(n + 1) - gammaln(counts + 1) - gammaln(n - counts + 1)
    table: Array = np.exp(ways + xlogy(counts, share) + xlog1py(n - counts, -share))
    return table

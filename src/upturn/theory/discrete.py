"""A discrete distribution, refitted to n of its own draws: the loss by chance alone."""

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


_ROUNDING = 1e-9  # of a count that is compared with a share of n
_EXACT_STATES = 2000  # the chain of one mode's count has n + 1 states; beyond, a simulation is cheaper


def mixed_heterozygosity(
    real: int, synthetic: int, lam: float, rounds: int, start: float = 1.0, *, fresh: bool = False
) -> float:
    """E[1 - Σp²] of the model fitted on ``real`` real draws and ``synthetic`` of the model before, weights 1 : λ.

    Round 1 is the fit on the real draws alone; these are the same in every round, or new draws where ``fresh``. With
    F = Σp_0², w = 1/(1+λ), A = E[Σp_t²], B = E[Σ p_t r] for real shares r, E[Σr²] = F + (1-F)/n:

        A' = w² E[Σr²] + 2w(1-w) B + (1-w)² (A + (1-A)/m),   B' = w E[Σr²] + (1-w) B (F where fresh)

    λ = inf is (1-1/m)^{t-1} (1-1/n) of the start. Derived in docs/theory.md, checked.
    """
    w = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    equal = 1 - start
    drawn = equal + (1 - equal) / real
    same, shared = drawn, drawn
    for _ in range(rounds - 1):
        cross = equal if fresh else shared
        same = w**2 * drawn + 2 * w * (1 - w) * cross + (1 - w) ** 2 * (same + (1 - same) / synthetic)
        shared = w * drawn + (1 - w) * shared
    return 1 - same


def expected_lost_modes(
    shares: Array, n: int, rounds: int, *, lam: float = math.inf, least: float = 0.0, replicas: int = 4000,
    seed: int = 0,
) -> Estimate:
    """Modes that a perfect learner loses by drift alone: n draws a round (Wright–Fisher).

    ``shares`` (k,) at the start. A mode is lost where at most the share ``least`` of the n newest draws is left of it
    (0: none at all). Round t + 1 draws from (shares + λ draws/n)/(1+λ): λ = inf is replace, any other has real data in
    every round. Exact up to n = 2,000 (a mode's count is a Markov chain of its own: binomial), simulated with its
    standard error beyond. Checked against a direct simulation.
    """
    if rounds <= 0:
        return Estimate(float(np.sum(np.asarray(shares) <= least)), 0.0)
    return lost_modes_path(shares, n, rounds, lam=lam, least=least, replicas=replicas, seed=seed)[-1]


def lost_modes_path(
    shares: Array, n: int, rounds: int, *, lam: float = math.inf, least: float = 0.0, replicas: int = 4000,
    seed: int = 0,
) -> list[Estimate]:
    """:func:`expected_lost_modes` after each of 1 … ``rounds`` rounds, at the cost of the last."""
    p = np.asarray(shares, dtype=np.float64)
    real = 0.0 if math.isinf(lam) else 1 / (1 + lam)
    if n <= _EXACT_STATES:
        return [Estimate(value, 0.0) for value in _lost_exactly(p, n, rounds, real, least).tolist()]
    rng = seeds.generator(seeds.key("lost modes", seed))
    drawn, path = np.tile(p, (replicas, 1)), []
    for t in range(rounds):
        current = drawn if t == 0 else real * p + (1 - real) * drawn
        drawn = rng.multinomial(n, current) / n
        lost = np.sum(drawn <= least + _ROUNDING / n, axis=1)
        spread = max(float(lost.var()), len(p) / replicas)  # none seen: not more than about one in all replicas
        path.append(Estimate(float(lost.mean()), math.sqrt(spread / replicas)))
    return path


def _lost_exactly(p: Array, n: int, rounds: int, real: float, least: float) -> Array:
    """(rounds,) by the chain of one mode's count, backwards from "lost"."""
    counts = np.arange(n + 1)
    by_share = [p[p == share] for share in np.unique(p)] if real else [p]  # modes that share a chain of counts
    lost = np.zeros(rounds)
    for own in by_share:
        gone = (counts <= least * n + _ROUNDING).astype(np.float64)
        chain = _binomial(n, real * own[0] + (1 - real) * counts / n) if rounds > 1 else gone
        first = _binomial(n, own)
        for t in range(rounds):
            lost[t] += float(np.sum(first @ gone))
            if t < rounds - 1:
                gone = chain @ gone
    return lost


def _binomial(n: int, p: Array) -> Array:
    """(len(p), n + 1) probabilities of 0 … n."""
    from scipy.special import gammaln, xlog1py, xlogy

    counts = np.arange(n + 1)[None, :]
    share = np.asarray(p, dtype=np.float64)[:, None]
    ways = gammaln(n + 1) - gammaln(counts + 1) - gammaln(n - counts + 1)
    table: Array = np.exp(ways + xlogy(counts, share) + xlog1py(n - counts, -share))
    return table

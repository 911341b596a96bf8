"""Where curated rounds settle: the shares of classes under a fixed reward, K and λ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from upturn import seeds
from upturn.theory.curation import curated_update, laplace, mix
from upturn.types import Array

_TOLERANCE = 1e-12
_MOST_UPDATES = 100_000


def fixed_point(reference: Array, r: Array, candidates: int, lam: float) -> Array:
    """(m,) p* = (p_ref + λ p*·H)/(1+λ) under a fixed reward, by iterating from p_ref (renormalised: the sum is an
    unstable direction). Two equal classes, r = ±0.5, K = 4, λ = 1: 0.651 and 0.349. Checked.

    Raises ValueError if it has not settled after 100,000 rounds.
    """
    start = np.asarray(reference, dtype=np.float64)
    fitness, decay, weights = laplace(r)

    def update(p: Array) -> Array:
        chosen = p * fitness * (decay @ (weights * (p @ decay) ** (candidates - 1)))
        return mix(start, chosen / chosen.sum(), lam)

    return _settle(update, start)


def fixed_point_from_advantage(
    reference: Array, advantage: Array | Callable[[Array], Array], lam: float, learner: Array | None = None
) -> Array:
    """(C,) shares where classes settle, from each class's share after selection over its share before.

    ``advantage`` (C,) taken as constant (right to first order: p* - p_ref ≈ λ p_ref (H-1)), or a function of the
    current shares. Selected shares are renormalised: they sum to 1 only where they were measured. ``learner`` (C,) is a
    bias of the learner: share in the model over share in what it learned from, as measured where nothing was selected;
    None is a perfect one. p* is then proportional to learner * (p_ref + λ p* A). Raises ValueError if they do not
    settle.
    """
    start = np.asarray(reference, dtype=np.float64)
    bias = np.ones_like(start) if learner is None else np.asarray(learner, dtype=np.float64)

    def update(p: Array) -> Array:
        chosen = p * np.asarray(advantage(p) if callable(advantage) else advantage)
        learned = bias * mix(start, chosen / chosen.sum(), lam)
        return np.asarray(learned / learned.sum())

    return _settle(update, start)


@dataclass(frozen=True)
class FixedPoint:
    """Where class shares settle: ``shares`` (C,), a percentile bootstrap interval ``low``, ``high`` (C,) at ``level``,
    and ``advantage`` (C,), share after selection over share before at the reference.
    """

    shares: Array
    low: Array
    high: Array
    level: float
    advantage: Array


def fixed_point_from_rewards(
    reference: Array, rewards: Sequence[Array], candidates: int, lam: float,
    *, resamples: int = 400, level: float = 0.95, seed: int = 0,
) -> FixedPoint:
    """Where the shares of C classes settle when each class keeps its measured spread of rewards and only shares move.

    ``reference`` (C,) real shares, ``rewards`` C arrays of rewards of samples of that class. Exact for `choice` among K
    candidates with the union of the samples as support; the interval resamples rewards within classes. It holds the
    uncertainty of the measured rewards only: the drift of a run with n samples a round comes on top. Checked.
    """
    start = np.asarray(reference, dtype=np.float64)
    if len(rewards) != len(start) or any(len(one) == 0 for one in rewards):
        raise ValueError(f"{len(start)} classes need as many arrays of at least one reward")
    fitness, decay, weights = laplace(np.concatenate([np.asarray(one, dtype=np.float64) for one in rewards]))
    rng = seeds.generator(seeds.key("fixed point", seed))
    mean_decay, mean_slope = [], []  # each (1 + resamples, Q) a class: E[e^{-u f}] and E[f e^{-u f}]
    at = 0
    for one in rewards:
        size = len(one)
        drawn = rng.multinomial(size, np.full(size, 1 / size), size=resamples)
        shares = np.concatenate([np.ones((1, size)), drawn]) / size
        part, f = decay[at : at + size], fitness[at : at + size]
        mean_decay.append(shares @ part)
        mean_slope.append((shares * f) @ part)
        at += size
    phi, psi = np.stack(mean_decay, axis=1), np.stack(mean_slope, axis=1) * weights  # (1 + resamples, C, Q)

    def select(p: Array) -> Array:
        pool = np.einsum("bc,bcq->bq", p, phi)
        chosen = p * np.einsum("bcq,bq->bc", psi, pool ** (candidates - 1))
        return np.asarray(chosen / chosen.sum(axis=1, keepdims=True))

    tiled = np.tile(start, (1 + resamples, 1))
    settled = _settle(lambda p: mix(start, select(p), lam), tiled)
    tail = (1 - level) / 2
    low, high = np.quantile(settled[1:], [tail, 1 - tail], axis=0) if resamples else (settled[0], settled[0])
    return FixedPoint(settled[0], low, high, level, select(tiled[:1])[0] / start)


def curated_half_life(rewards: Array, candidates: float, most: int = 1000) -> float:
    """Rounds, with fractions, until curation alone halves the effective number exp(entropy) of equally likely samples.

    ``rewards`` (m,) of a pool. inf if that takes more than ``most`` rounds. An ideal learner, `choice`, a fixed reward.
    """
    p = np.full(len(rewards), 1 / len(rewards))
    entropy = limit = math.log(len(rewards))
    limit -= math.log(2)
    for t in range(most):
        p = curated_update(p, rewards, candidates)
        positive = p[p > 0]
        after = float(-np.sum(positive * np.log(positive)))
        if after <= limit:
            return t + (entropy - limit) / (entropy - after)
        entropy = after
    return math.inf


def _settle(update: Callable[[Array], Array], start: Array) -> Array:
    p = start
    for _ in range(_MOST_UPDATES):
        after = update(p)
        if np.max(np.abs(after - p)) < _TOLERANCE:
            return after
        p = after
    raise ValueError(f"the shares have not settled after {_MOST_UPDATES} rounds")

"""Estimates from a real run, in the symbols of the theory, each with its interval or "unidentified".

Intervals are jackknife ones over blocks of samples: products of means use different rows (or they would be
biased by their variance), which a bootstrap's repeated rows would spoil. `docs/theory.md`, "Estimates".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upturn.statistics.intervals import jackknife
from upturn.theory.curation import laplace
from upturn.types import Array

_WIDE = 0.5  # an interval wider than this is no estimate of a rate between 0 and 1
_BLOCKS = 20
_MOST_CANDIDATES = 4096.0
_HALVINGS = 25  # of the range of log K: to one in ten million
_SUPPORT = 400  # rewards that represent a round's: the cost grows with them


@dataclass(frozen=True)
class Estimated:
    """``value`` in [``low``, ``high``] at 95%; all NaN where it is unidentified, with the reason in ``note``."""

    value: float
    low: float
    high: float
    note: str = ""


def unidentified(why: str) -> Estimated:
    return Estimated(math.nan, math.nan, math.nan, f"unidentified: {why}")


def about(value: float, error: float, free: int) -> Estimated:
    """``value`` with a standard error on ``free`` degrees of freedom."""
    half = _t(free) * error
    return Estimated(value, value - half, value + half)


def contraction(one: Sequence[Array], other: Sequence[Array]) -> Estimated:
    """The factor by which twin runs that were started apart come together in a round, d_{t+1} = ρ d_t + noise.

    one, other  of each round t = 0 … T the samples' features (N, d), row i from the same prompt and noise in all

    Least squares over rounds and features; the chance of each round's training, as the residuals have it, is added to
    the samples' own. Near a fixed point of a map without curation ρ is its slope: λ/(1+λ) in an exponential family.
    """
    gaps = np.stack([np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
                     for a, b in zip(one, other, strict=True)])
    rounds, n, width = gaps.shape
    if rounds < 2:
        return unidentified("one round of each twin shows no change")

    def products(rows: Array) -> tuple[float, float]:
        part = gaps[:, rows]
        sums, many = part.sum(axis=1), len(rows)
        cross = np.sum(sums[1:] * sums[:-1]) - np.sum(part[1:] * part[:-1])
        own = np.sum(sums[:-1] ** 2) - np.sum(part[:-1] ** 2)
        return float(cross) / (many * (many - 1)), float(own) / (many * (many - 1))

    every = np.arange(n)
    apart_low, _ = jackknife(lambda rows: products(rows)[1], n, _BLOCKS)
    cross, apart = products(every)
    if not apart_low > 0:
        return unidentified("the twins are not apart beyond chance")
    value = cross / apart
    low, high = jackknife(lambda rows: products(rows)[0] / products(rows)[1], n, _BLOCKS)
    free = (rounds - 1) * width - 1
    if free < 1:
        return unidentified("one change of one feature leaves no residual to estimate its error")
    means = gaps.mean(axis=1)
    residual = float(np.sum((means[1:] - value * means[:-1]) ** 2)) / free
    half = math.hypot((high - low) / 2, _t(free) * math.sqrt(residual / apart))
    if 2 * half > _WIDE:
        return unidentified(f"{rounds - 1} rounds leave it between {value - half:.2g} and {value + half:.2g}")
    return Estimated(value, value - half, value + half)


def effective_lambda(data: Array, kept: Sequence[Array], after: Sequence[Array]) -> Estimated:
    """λ as it acted on the model: its mean features moved λ/(1+λ) of the way from the data's to the kept samples'.

    data   (M, d) features of real training samples
    kept   of each round (n, d) those of the samples it kept;  after  (N, d) those of samples of the resulting model

    Least squares over rounds. A model that matches means, as any exponential family does, has the λ of its mixture.
    """
    def share(which: int) -> float:
        def part(rows: Array, left_out: int) -> Array:
            return rows if left_out < 0 else rows[np.arange(len(rows)) % _BLOCKS != left_out]

        top = bottom = 0.0
        real = part(np.asarray(data, dtype=np.float64), which)
        halves = real[::2].mean(axis=0), real[1::2].mean(axis=0)
        for chosen, sampled in zip(kept, after, strict=True):
            own = part(np.asarray(chosen, dtype=np.float64), which)
            moved = part(np.asarray(sampled, dtype=np.float64), which)
            first, second = own[::2].mean(axis=0), own[1::2].mean(axis=0)
            new = moved.mean(axis=0)
            for a, b in (halves, halves[::-1]):
                top += float((new - a) @ ((first + second) / 2 - b))
                bottom += float((first - a) @ (second - b))
        pulls[which] = bottom
        return top / bottom if bottom else math.nan

    pulls: dict[int, float] = {}
    value = share(-1)
    left_out = np.array([share(block) for block in range(_BLOCKS)])
    others = np.array([pulls[block] for block in range(_BLOCKS)])
    width = _t(_BLOCKS - 1) * math.sqrt(_BLOCKS - 1)
    if not pulls[-1] - width * others.std() > 0:
        return unidentified("what was kept does not differ from the data beyond chance, in these features")
    half = width * float(left_out.std())
    if 2 * half > _WIDE:
        return unidentified(f"the synthetic share is only known to lie in {value - half:.2g} to {value + half:.2g}")
    low, high = max(value - half, 0.0), min(value + half, 1.0)
    return Estimated(_ratio(value), _ratio(low), _ratio(high))


def effective_candidates(rewards: Array, groups: Array, kept: Array) -> Estimated:
    """The K of an ideal `choice` that would have raised E[e^r] as much as this round's curation did.

    rewards (N,) of the candidates, ``groups`` (N,) their prompts, ``kept`` (N,) bool. The candidates are the support.
    1 is no selection; more than any K gives (the limit is the exponential tilt) is "unidentified".
    """
    rewards, kept = np.asarray(rewards, dtype=np.float64), np.asarray(kept, dtype=bool)
    beyond = "no K raises E[e^r] as much: the selection is sharper than the reward's own tilt"
    top = float(rewards.max())

    def found(rows: Array) -> float:
        return _candidates(rewards[rows], float(np.exp(rewards[rows][kept[rows]] - top).mean()), top)

    if not kept.any() or np.ptp(rewards) == 0:
        return unidentified("nothing was kept" if not kept.any() else "all rewards are equal")
    value = found(np.arange(len(rewards)))
    if not math.isfinite(value):
        return unidentified(beyond)
    low, high = jackknife(lambda rows: math.log(found(rows)), len(rewards), _BLOCKS, clusters=groups)
    if not math.isfinite(low):
        return unidentified(beyond)
    return Estimated(value, max(math.exp(low), 1.0), math.exp(high))


def selection_strength(rewards: Array, groups: Array, kept: Array) -> Estimated:
    """Mean reward kept less mean reward of all candidates, nats."""
    rewards, kept = np.asarray(rewards, dtype=np.float64), np.asarray(kept, dtype=bool)

    def gain(rows: Array) -> float:
        chosen = rewards[rows][kept[rows]]
        return float(chosen.mean() - rewards[rows].mean()) if len(chosen) else math.nan

    value = gain(np.arange(len(rewards)))
    low, high = jackknife(gain, len(rewards), _BLOCKS, clusters=groups)
    return Estimated(value, low, high) if math.isfinite(low) else unidentified("too few prompts")


def _candidates(rewards: Array, wanted: float, top: float) -> float:
    """K with Σ p H e^r = ``wanted`` (in units of e^{top}), by bisection; 1 where less, inf where none is enough.

    H of :func:`choice_kernel` at many K: what does not depend on K is summed over the support once.
    """
    support = np.sort(rewards)
    if len(support) > _SUPPORT:  # midpoints of equal shares of the sorted rewards
        at = (np.arange(_SUPPORT) + 0.5) / _SUPPORT * len(support)
        support = support[at.astype(int)]
    fitness, decay, weights = laplace(support)
    each = decay.mean(axis=0)
    chosen, lifted = weights * (fitness @ decay), weights * ((fitness * np.exp(support - top)) @ decay)

    def raised(count: float) -> float:
        others = each ** (count - 1)
        return float((lifted @ others) / (chosen @ others))

    low, high = 1.0, _MOST_CANDIDATES
    if wanted <= raised(low):
        return 1.0
    if wanted > raised(high):
        return math.inf
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if raised(middle) < wanted else (low, middle)
    return math.sqrt(low * high)


def _ratio(share: float) -> float:
    return share / (1 - share) if share < 1 else math.inf


def _t(free: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(free, 0.975))

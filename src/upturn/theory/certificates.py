"""A round compared with an ideal learner: growth, pile-up and loss of classes.

Each check is a margin that is at least 0 for an ideal learner, with an interval that holds what is uncertain: the
samples measured, and those the learner was given. `docs/theory.md`, "Certificates".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from upturn.theory.curation import kl_bound, mode_loss_bound
from upturn.types import Array

Word = Literal["consistent", "inconsistent", "cannot tell"]

CONSISTENT: Word = "consistent"
INCONSISTENT: Word = "inconsistent"
CANNOT_TELL: Word = "cannot tell"


class Mean(NamedTuple):
    """An estimated mean and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Check:
    """``value`` [``low``, ``high``] is to be at least ``bound`` (``side`` "least") or at most ("most").

    name   growth | pile-up | class loss
    word   "consistent" (with an ideal learner) where the whole interval is on the bound's right side, "inconsistent"
           where it is on the wrong one: beyond chance, at the requested error rate; else "cannot tell"
    by     what it was measured by
    """

    name: str
    word: Word
    value: float
    low: float
    high: float
    bound: float
    side: Literal["least", "most"]
    by: str


def error_rate(alpha: float, rounds: int, checks: int = 3) -> float:
    """What one check may err where all of a run together may err ``alpha``: the union bound."""
    return alpha / (rounds * checks)


def mean(values: Array, groups: Array | None = None) -> Mean:
    """Of ``values`` (n,), rows of one group drawn together. Two groups at least, or the error is inf."""
    values = np.asarray(values, dtype=np.float64)
    if groups is None:
        sums, sizes = values, np.ones(len(values))
    else:
        _, place = np.unique(groups, return_inverse=True)
        sums, sizes = np.bincount(place, weights=values), np.bincount(place).astype(np.float64)
    count = len(sums)
    middle = float(sums.sum() / sizes.sum()) if len(values) else math.nan
    if count < 2:
        return Mean(middle, math.inf)
    residual = sums - middle * sizes
    return Mean(middle, math.sqrt(count / (count - 1) * float(np.sum(residual**2))) / float(sizes.sum()))


def variance(values: Array, groups: Array, within: bool) -> Mean:
    """Var of the values (n,); ``within`` groups where samples depend on the prompt, else of all together."""
    values = np.asarray(values, dtype=np.float64)
    if not within:
        squares = (values - values.mean()) ** 2
        found = mean(squares, groups)
        n = len(values)
        return Mean(found.value * n / (n - 1), found.error)
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    middles = np.bincount(place, weights=values) / sizes
    squares = np.bincount(place, weights=(values - middles[place]) ** 2)
    many = sizes > 1
    return mean(squares[many] / (sizes[many] - 1))


def growth(
    change: Mean, spread: Mean, given: Mean, factor: float, share: float, alpha: float, by: str
) -> Check:
    """Did E[e^r] grow by at least ``factor`` · Var[e^r]?

    change  of E[e^r] over the model before (or the reference), paired
    spread  Var[e^r] under that model
    given   mean of e^r of the samples the learner was given: their ``share`` of the mixture is chance that no learner
            can undo, so its error counts
    factor  (K-1)/(K e^{r*}) curated only (:func:`growth_bound`), times λ/(1+λ)³ with real data
            (:func:`growth_bound_real`)
    """
    bound = factor * spread.value
    error = math.sqrt(change.error**2 + (factor * spread.error) ** 2 + (share * given.error) ** 2)
    half = _z(alpha) * error
    low, high = change.value - half, change.value + half
    return Check("growth", _word(low - bound, high - bound), change.value, low, high, bound, "least", by)


def pile_up(divergence: Mean, lam: float, candidates: int, reward_range: float, alpha: float, by: str) -> Check | None:
    """Is KL(p_t‖p_0) at most :func:`kl_bound`? None where that has no bound.

    ``divergence`` is the KL or, of shares of classes, less than it: then "consistent" covers the classes only.
    """
    bound = kl_bound(lam, candidates, reward_range)
    if math.isinf(bound):
        return None
    half = _z(alpha) * divergence.error
    low, high = divergence.value - half, divergence.value + half
    return Check("pile-up", _word(bound - high, bound - low), divergence.value, low, high, bound, "most", by)


def class_loss(now: Array, before: Array, lam: float, alpha: float, by: str) -> Check:
    """Does every class keep 1/(1 + λ) of its share? ``now``, ``before`` (C,) counts of samples.

    All C are tested (union bound) and the worst reported. The interval of share_t - share_0/(1+λ) is Newcombe's (1998,
    method 10: Wilson's of each share, combined), so that a class without samples has one, too.
    """
    keep, z = 1 / mode_loss_bound(lam), _z(alpha / len(now))
    new, new_low, new_high = _wilson(now, z)
    old, old_low, old_high = (keep * part for part in _wilson(before, z))
    low = new - old - np.hypot(new - new_low, old_high - old)
    high = new - old + np.hypot(new_high - new, old - old_low)
    words = [_word(float(lower), float(upper)) for lower, upper in zip(low, high, strict=True)]
    word = next((w for w in (INCONSISTENT, CANNOT_TELL) if w in words), CONSISTENT)
    at = int(np.argmin((new - old) / (high - low)))
    bound = float(old[at])
    ends = bound + float(low[at]), bound + float(high[at])
    return Check("class loss", word, float(new[at]), *ends, bound, "least", by)


def _wilson(counts: Array, z: float) -> tuple[Array, Array, Array]:
    """(C,) shares and their score intervals."""
    n = float(np.sum(counts))
    p = np.asarray(counts, dtype=np.float64) / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return p, np.minimum(centre - half, p), np.maximum(centre + half, p)


def divergence_of_shares(now: Array, before: Array) -> Mean:
    """KL(p_t‖p_0) of the shares of C classes, from counts (C,), less its bias (C-1)(1/n_t + 1/n_0)/2 (Miller)."""
    new, old = np.asarray(now, dtype=np.float64) + 0.5, np.asarray(before, dtype=np.float64) + 0.5
    p, q = new / new.sum(), old / old.sum()
    log = np.log(p / q)
    value = float(np.sum(p * log))
    spread = float(np.sum(p * (log - value) ** 2)) / new.sum() + float(np.sum((p / q) ** 2 * q) - 1) / old.sum()
    bias = (len(p) - 1) * (1 / new.sum() + 1 / old.sum()) / 2
    return Mean(value - bias, math.sqrt(max(spread, 0.0) + bias**2))


def worst(checks: Sequence[Check]) -> Word:
    """Of a round: inconsistent if any check is, consistent only if all are."""
    words = [check.word for check in checks]
    return next((w for w in (INCONSISTENT, CANNOT_TELL) if w in words), CONSISTENT if words else CANNOT_TELL)


def _z(alpha: float) -> float:
    from scipy.special import ndtri

    return -float(ndtri(alpha))


def _word(low: float, high: float) -> Word:
    """Of the interval of a margin that an ideal learner has at 0 or above."""
    return CONSISTENT if low >= 0 else INCONSISTENT if high < 0 else CANNOT_TELL

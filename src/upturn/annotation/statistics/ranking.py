"""Ranks models by annotators' preferences: maximum-likelihood strengths with intervals.

P(i is picked among those present) = e^s_i / (sum of e^s_j + tie mass); s is a strength in nats. Pairs are Bradley–Terry
(1952), picks of K Luce's choice (1959), rankings Plackett–Luce. The mass of a tie of all is nu_K e^(mean of s): with
two it is Davidson's (1970, JASA 65, equation 2.5), with more the same for ties of all (Firth, Kosmidis & Turner 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from upturn.annotation.statistics.comparability import incomparable_parts, parts_of
from upturn.annotation.statistics.contests import TIED, Contests, contests
from upturn.annotation.statistics.strengths import StrengthFit, fit
from upturn.types import Array, Measurement, Votes


@dataclass(frozen=True)
class Ranking:
    """Strengths of n players, the best first within each part; differences between parts are undefined.

    names     (n,) the players;  part (n,) 0, 1, …: which belong together
    strength  (n,) nats above the mean of the part, NaN for a part of one player;  low, high (n,) its interval
    cov       (n, n) of the strengths, 0 between parts;  quantile (n,) half an interval over a standard error
    wins, losses, ties  (n,) contests, by weight
    tie_rate  of a tie between K equals, in the largest part: K -> share
    notes     sentences on undefined differences: which were never compared, which never lost to another
    votes     how many count;  left_out  reason -> how many do not
    """

    names: tuple[str, ...]
    part: Array
    strength: Array
    low: Array
    high: Array
    cov: Array
    quantile: Array
    wins: Array
    losses: Array
    ties: Array
    tie_rate: Mapping[int, float]
    notes: tuple[str, ...]
    votes: int
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def difference(self, first: str, second: str) -> Measurement:
        """How much stronger the first is, in nats; NaN with the reason where it is undefined."""
        i, j = self.names.index(first), self.names.index(second)
        if self.part[i] != self.part[j]:
            note = f"{first} and {second} are in different parts"
            return Measurement(math.nan, math.nan, math.nan, self.votes, note=note)
        value = float(self.strength[i] - self.strength[j])
        variance = float(self.cov[i, i] + self.cov[j, j] - 2 * self.cov[i, j])
        half = float(self.quantile[i]) * math.sqrt(max(variance, 0.0))
        return Measurement(value, value - half, value + half, self.votes)


def ranking(
    votes: Votes, players: Mapping[str, str] | None = None, weights: Array | None = None, level: float = 0.95
) -> Ranking:
    """Players ranked by all votes that compare them: ``players`` maps sample ids to players, such as models.

    Intervals use the sandwich estimator over tasks: votes on one task are not independent, and weighted votes have no
    information matrix. See :func:`rank`.
    """
    found, left = contests(votes, players, weights)
    return rank(found, left, clusters=found.task, level=level)


def rank(
    found: Contests, left_out: Mapping[str, int] | None = None, *, clusters: Array | None = None, level: float = 0.95
) -> Ranking:
    """Maximum likelihood within each part of players who each beat one another, directly or through others.

    Only there the likelihood has a finite maximum (Ford 1957; Hunter 2004, assumption 1; a tie alone does not bound
    it). Contests between parts are described in ``notes``. For a part they count for those of its players who took
    part, by Luce's axiom. Intervals: the observed information, or with ``clusters`` (S,) the sandwich
    over them (Huber 1967; Liang & Zeger 1986) with t quantiles. Both rest on many wins and losses of every player.
    """
    part = parts_of(found)
    n = len(found.names)
    strength, low, high, quantile = (np.full(n, math.nan) for _ in range(4))
    cov = np.zeros((n, n))
    rates: dict[int, float] = {}
    for number in np.argsort(-np.bincount(part, minlength=1), kind="stable").tolist():
        members = np.flatnonzero(part == number)
        if len(members) < 2:
            continue
        inside, rows = _within(found, members)
        own = fit(inside, None if clusters is None else clusters[rows])
        strength[members], cov[np.ix_(members, members)] = own.strength, own.cov
        quantile[members] = _quantile(level, own)
        half = quantile[members] * np.sqrt(np.diag(own.cov))
        low[members], high[members] = own.strength - half, own.strength + half
        rates = rates or {k: nu / (k + nu) for k, nu in own.nu.items()}
    wins, losses, ties = _counts(found)
    order = np.lexsort((np.nan_to_num(-strength), part))
    return Ranking(
        tuple(str(found.names[i]) for i in order), part[order], strength[order], low[order], high[order],
        cov[np.ix_(order, order)], quantile[order], wins[order], losses[order], ties[order], rates,
        incomparable_parts(found, part), len(np.unique(found.vote)), dict(left_out or {}),
    )


def _quantile(level: float, own: StrengthFit) -> float:
    from scipy.special import ndtri, stdtrit

    upper = (1 + level) / 2
    return float(ndtri(upper) if own.clusters is None else stdtrit(own.clusters - 1, upper))


def _within(found: Contests, members: Array) -> tuple[Contests, Array]:
    """The contests as they are among the members alone, renumbered, and which rows of ``found`` they are."""
    number = np.full(len(found.names) + 1, -1, dtype=np.int64)
    number[members] = np.arange(len(members))
    there = number[found.there]  # -1 takes the last entry, which is -1
    whole = (there >= 0) == (found.there >= 0)
    won = np.where(found.won >= 0, there[np.arange(len(found)), np.maximum(found.won, 0)] >= 0, whole.all(axis=1))
    ordered = np.sort(there, axis=1)
    several = (ordered[:, -1] >= 0) & (np.where(there >= 0, there, ordered[:, -1:]).min(axis=1) < ordered[:, -1])
    rows = np.flatnonzero(won & several)
    kept = found.take(rows)
    may = kept.may_tie & whole[rows].all(axis=1)
    return Contests(
        found.names[members], there[rows], kept.won, may, kept.vote, kept.task, kept.person, kept.weight
    ), rows


def _counts(found: Contests) -> tuple[Array, Array, Array]:
    """(n,) weighted wins, losses and ties; a player that is twice in a contest counts once."""
    n = len(found.names)
    present = np.zeros((len(found), n + 1), dtype=bool)
    present[np.arange(len(found))[:, None], found.there] = True
    present = present[:, :n]
    tied = found.won == TIED
    winner = np.where(tied, -1, found.there[np.arange(len(found)), np.maximum(found.won, 0)])
    wins = np.bincount(winner[~tied], weights=found.weight[~tied], minlength=n)
    ties = (present[tied] * found.weight[tied, None]).sum(axis=0)
    return wins, (present * found.weight[:, None]).sum(axis=0) - wins - ties, ties

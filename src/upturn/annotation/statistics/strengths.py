"""The likelihood of contests by players' strengths: its maximum by Newton's method, and the covariance there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from upturn.annotation.statistics.contests import TIED, Contests
from upturn.types import Array

_STEPS = 60
_CLOSE = 1e-9  # largest gradient left, a share of the weight of all contests
_HALVINGS = 40


@dataclass(frozen=True)
class StrengthFit:
    """strength (n,) nats, mean 0;  cov (n, n);  nu: tie parameter by K;  log_likelihood;  clusters of the sandwich."""

    strength: Array
    cov: Array
    nu: Mapping[int, float]
    log_likelihood: float
    clusters: int | None


def fit(found: Contests, clusters: Array | None = None) -> StrengthFit:
    """Maximum likelihood; there must be one: every player beat every other, directly or through others.

    ``nu`` is fitted for each number of candidates at which some contests tied and some did not; where none did, ties
    have probability 0, and where all did, these contests carry no information. The covariance is the inverse of the
    observed information, or the sandwich with C / (C - 1) over C ``clusters`` (S,).
    """
    model = _StrengthModel.of(found)
    free = np.zeros(len(found.names) - 1 + len(model.sizes))  # the first player's strength is 0
    value, gradient, information = model.terms(free)
    for _ in range(_STEPS):
        if np.abs(gradient).max(initial=0.0) <= _CLOSE * model.weight.sum():
            break
        step = np.linalg.solve(information, gradient)
        for halving in range(_HALVINGS):
            trial = free + step * 0.5**halving
            reached = model.terms(trial)
            if reached[0] >= value:
                break
        free, (value, gradient, information) = trial, reached
    inverse = np.linalg.inv(information)
    count = None
    if clusters is not None:
        names, place = np.unique(clusters[model.rows], return_inverse=True)
        count = len(names)
        inverse = inverse @ model.spread(free, place, count) @ inverse * (count / max(count - 1, 1))
    n = len(found.names)
    # from strengths against the first player to strengths about the mean
    centre = np.vstack([np.zeros((1, n - 1)), np.eye(n - 1)]) - 1 / n
    return StrengthFit(
        centre @ free[: n - 1], centre @ inverse[: n - 1, : n - 1] @ centre.T,
        dict(zip(model.sizes, np.exp(free[n - 1 :]).tolist(), strict=True)), value, count,
    )


@dataclass(frozen=True)
class _StrengthModel:
    """A contest is a multinomial logit: its candidates, and where it may be, the tie of all of them.

    columns (S, K + 1) the parameter of each candidate and of the tie, D where there is none (of the first player, who
    is 0, too);  mask (S, K);  tie (S,) bool;  chosen (S,) column;  sizes: the numbers of candidates with a nu
    """

    rows: Array
    columns: Array
    mask: Array
    tie: Array
    chosen: Array
    weight: Array
    sizes: tuple[int, ...]
    free: int

    @classmethod
    def of(cls, found: Contests) -> _StrengthModel:
        mask = found.there >= 0
        size, tied = mask.sum(axis=1), found.won == TIED
        may_tie = found.may_tie | tied
        both = [k for k in np.unique(size[tied]).tolist() if (~tied & may_tie & (size == k)).any()]
        rows = np.flatnonzero(~tied | np.isin(size, both))  # contests of a size at which all tied carry no information
        mask, size, tied = mask[rows], size[rows], tied[rows]
        tie = may_tie[rows] & np.isin(size, both)
        players = len(found.names) - 1
        dimensions = players + len(both)
        columns = np.where(mask, found.there[rows] - 1, dimensions)
        columns = np.where(columns < 0, dimensions, columns)
        place = players + np.searchsorted(np.array(both, dtype=np.int64), size)
        columns = np.concatenate([columns, np.where(tie, place, dimensions)[:, None]], axis=1)
        chosen = np.where(tied, mask.shape[1], found.won[rows])
        return cls(rows, columns, mask, tie, chosen, found.weight[rows], tuple(both), dimensions)

    def _shares(self, free: Array) -> tuple[Array, Array, Array]:
        """(S,) log-probability of what was chosen; (S, K + 1) probabilities; (S, K + 1) mean features of a contest.

        The feature of a candidate is its own parameter; that of the tie is 1/k of each of the k, and its nu.
        """
        values = np.append(free, 0.0)[self.columns]
        size = self.mask.sum(axis=1)
        values[:, :-1] = np.where(self.mask, values[:, :-1], -np.inf)
        mean = np.where(self.mask, values[:, :-1], 0.0).sum(axis=1) / size
        values[:, -1] = np.where(self.tie, values[:, -1] + mean, -np.inf)
        top = values.max(axis=1, keepdims=True)
        mass = np.exp(values - top)
        total = mass.sum(axis=1, keepdims=True)
        shares = mass / total
        rows = np.arange(len(values))
        log_chosen = values[rows, self.chosen] - top[:, 0] - np.log(total[:, 0])
        means = shares.copy()
        means[:, :-1] += np.where(self.mask, (shares[:, -1] / size)[:, None], 0.0)
        return log_chosen, shares, means

    def _scores(self, means: Array) -> Array:
        """(S, K + 1) of each contest's log-probability by the features of its columns."""
        size = self.mask.sum(axis=1)
        tied = self.chosen == self.mask.shape[1]
        own = np.zeros(means.shape)
        own[np.arange(len(own)), self.chosen] = 1.0
        own[:, :-1] += np.where(self.mask & tied[:, None], 1 / size[:, None], 0.0)
        found: Array = (own - means) * self.weight[:, None]
        return found

    def terms(self, free: Array) -> tuple[float, Array, Array]:
        """Log-likelihood, gradient (D,) and observed information (D, D)."""
        log_chosen, shares, means = self._shares(free)
        size, d = self.mask.sum(axis=1), self.free
        gradient = np.bincount(self.columns.ravel(), weights=self._scores(means).ravel(), minlength=d + 1)[:d]
        moments = -means[:, :, None] * means[:, None, :]
        width = shares.shape[1]
        moments[:, np.arange(width), np.arange(width)] += shares
        tie = shares[:, -1] / size
        moments[:, :-1, :-1] += np.where(
            self.mask[:, :, None] & self.mask[:, None, :], (tie / size)[:, None, None], 0.0
        )
        moments[:, :-1, -1] += np.where(self.mask, tie[:, None], 0.0)
        moments[:, -1, :-1] += np.where(self.mask, tie[:, None], 0.0)
        places = self.columns[:, :, None] * (d + 1) + self.columns[:, None, :]
        flat = np.bincount(
            places.ravel(), weights=(moments * self.weight[:, None, None]).ravel(), minlength=(d + 1) ** 2
        )
        return float(log_chosen @ self.weight), gradient, flat.reshape(d + 1, d + 1)[:d, :d]

    def spread(self, free: Array, place: Array, count: int) -> Array:
        """(D, D) sum over clusters of the outer product of their scores."""
        scores = self._scores(self._shares(free)[2])
        d = self.free
        cells = place[:, None] * (d + 1) + self.columns
        summed = np.bincount(cells.ravel(), weights=scores.ravel(), minlength=count * (d + 1))
        by_cluster = summed.reshape(count, d + 1)[:, :d]
        found: Array = by_cluster.T @ by_cluster
        return found

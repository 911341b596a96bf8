"""Agreement between annotators: Krippendorff's alpha and raw agreement by vote mode, with intervals over tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from upturn.annotation.statistics.votes import BAD, OTHER, TIE, Answers, countable, numbers, read, valued
from upturn.annotation.vote_mode import AgreementBy, measured_modes
from upturn.seeds import key as keyed
from upturn.statistics.intervals import bootstrap_mean, resampled_mean, share
from upturn.types import Array, Measurement, Votes

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: dict[AgreementBy, Level] = {"choice": "nominal", "side": "ordinal", "order": "ordinal", "number": "interval"}
# Tasks that two annotators answered: from 20 on, the interval of alpha covers 0.92 to 0.97 in all simulated settings;
# at 10 the coverage falls to 0.73 (bench/test_votes_worth.py).
LEAST = 20
_NEAR = 1.0  # ratings at most this far apart are equal
_ROUNDING = 1e-6
_BLOCK = 512  # tasks left out at once


@dataclass(frozen=True)
class Agreement:
    """The agreement of annotators who answered the same tasks in one mode.

    alpha   Krippendorff's alpha at ``level``: 1 is full agreement, 0 chance, below 0 systematic disagreement
    raw     how often two annotators of a task give the same answer; for rankings, per pair of candidates; for ratings,
            per candidate, where numbers up to 1 apart are equal
    people  number of annotators;  tasks  number of tasks that two of them answered
    """

    mode: str
    level: Level
    alpha: Measurement
    raw: Measurement
    people: int
    tasks: int


@dataclass(frozen=True)
class UnitValues:
    """Values by unit: ``units`` (n,) int64, ``values`` (n,) float64, ``tasks`` (n,) int64 of each unit."""

    units: Array
    values: Array
    tasks: Array


def agreement(votes: Votes) -> tuple[Agreement, ...]:
    """The agreement in each mode that has votes that count, sorted by the mode's name."""
    found = []
    for mode, by in measured_modes(votes.mode).items():
        level = LEVELS[by]
        own = votes.take(votes.mode == mode)
        own = own.take(valued(own) if by == "number" else countable(own)[0])
        if not len(own):
            continue
        answers = read(own)
        scale, same = _unit_values(by, answers, own)
        shared = np.unique(answers.task, return_counts=True)[1] >= 2
        within = _NEAR if by == "number" else 0.0
        found.append(Agreement(
            mode, level, alpha(scale, level), raw(same, within=within), len(answers.people), int(shared.sum()),
        ))
    return tuple(found)


def alpha(given: UnitValues, level: Level, confidence: float = 0.95) -> Measurement:
    """Krippendorff's alpha, 1 - observed / expected disagreement (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability", section E), of units with at least two values; NaN values are missing.

    Distances: nominal 0 or 1; interval the squared difference; ordinal the squared difference of midranks, which is his
    sum over the values between. The interval treats the tasks as a sample and the annotators as fixed: bootstrap over
    tasks (which may hold several units) of jackknife pseudo-values. Without any disagreement the lower end is that of
    Wilson's interval for raw agreement, put into the formula. Undefined below ``LEAST`` tasks, or where all values are
    equal.
    """
    parts = _Parts.of(given, level)
    if parts is None:
        return _undefined("no task was answered by two annotators", 0)
    count = len(parts.sizes)
    value = float(parts.alpha(np.ones((1, count)))[0])
    if math.isnan(value):
        return _undefined("all values are equal, so chance agreement cannot be estimated", count)
    if count < LEAST:
        return _undefined(f"{count} tasks were answered by two annotators, and {LEAST} are needed", count)
    if value == 1.0:
        low = share(np.ones(count), confidence)[0]
        return Measurement(value, 1 - (1 - low) / parts.differ(), 1.0, count)
    # leave-one-task-out pseudo-values, whose mean has alpha's variance (Quenouille, Tukey)
    pseudo = count * value - (count - 1) * parts.left_out()
    low, high = resampled_mean(pseudo, keyed("alpha", count), confidence)
    shift = value - float(pseudo.mean())
    return Measurement(value, low + shift, min(high + shift, 1.0), count)


def raw(given: UnitValues, confidence: float = 0.95, within: float = 0.0) -> Measurement:
    """How often two annotators give a unit the same value, averaged over the units of a task, then over tasks; values
    at most ``within`` apart are the same.

    Wilson's interval where each task has full agreement or none, else the bootstrap over tasks. Undefined below
    ``LEAST`` tasks.
    """
    units, unit = np.unique(given.units, return_inverse=True)
    size = np.bincount(unit, minlength=len(units))
    # the values of each unit are shifted to an interval of their own, so that one sorted search finds all equal pairs
    stretch = float(np.ptp(given.values)) + within + 1 if len(units) else 1.0
    line = np.sort(unit * stretch + (given.values - given.values.min(initial=np.inf)))
    close = np.searchsorted(line, line + within + _ROUNDING, side="right") - np.arange(len(line)) - 1
    equal = np.bincount(np.sort(unit), weights=2.0 * close, minlength=len(units))
    task = np.empty(len(units), dtype=np.int64)
    task[unit] = given.tasks
    known = size >= 2
    if not known.any():
        return _undefined("no task was answered by two annotators", 0)
    each = equal[known] / (size[known] * (size[known] - 1.0))
    _, place = np.unique(task[known], return_inverse=True)
    by_task = np.bincount(place, weights=each) / np.bincount(place)
    if len(by_task) < LEAST:
        return _undefined(f"{len(by_task)} tasks were answered by two annotators, and {LEAST} are needed", len(by_task))
    low, high = bootstrap_mean(by_task, keyed("agreement", len(by_task)), confidence)
    return Measurement(float(by_task.mean()), low, high, len(by_task), by_task)


@dataclass(frozen=True)
class _Parts:
    """The sufficient statistics of each task for alpha, so that alpha for any task weights is a few products.

    sizes (C,) values;  counts (C, V) of each different value;  apart (C,) or (C, V, V) disagreement within units
    values (V,) the different values
    """

    level: Level
    sizes: Array
    counts: Array
    apart: Array
    values: Array

    @classmethod
    def of(cls, given: UnitValues, level: Level) -> _Parts | None:
        known = ~np.isnan(given.values)
        units, unit = np.unique(given.units[known], return_inverse=True)
        several = np.bincount(unit, minlength=len(units))[unit] >= 2
        if not several.any():
            return None
        values, value = np.unique(given.values[known][several], return_inverse=True)
        units, first, unit = np.unique(given.units[known][several], return_index=True, return_inverse=True)
        _, place = np.unique(given.tasks[known][several][first], return_inverse=True)
        table_ = np.zeros((len(units), len(values)))
        np.add.at(table_, (unit, value), 1.0)
        size = table_.sum(axis=1)
        tasks = int(place.max()) + 1
        counts = np.zeros((tasks, len(values)))
        np.add.at(counts, place, table_)
        if level == "nominal":
            within = size - (table_ * (table_ - 1)).sum(axis=1) / (size - 1)
        elif level == "interval":
            within = 2 * (size * (table_ @ values**2) - (table_ @ values) ** 2) / (size - 1)
        else:
            pairs = table_[:, :, None] * table_[:, None, :] - table_[:, :, None] * np.eye(len(values))
            within = pairs / (size - 1)[:, None, None]
        apart = np.zeros((tasks, *within.shape[1:]))
        np.add.at(apart, place, within)
        return cls(level, counts.sum(axis=1), counts, apart, values)

    def alpha(self, weights: Array) -> Array:
        """(R,) alpha with the tasks weighted by each row of (R, C); NaN where no two values differ."""
        n, counts = weights @ self.sizes, weights @ self.counts
        if self.level == "nominal":
            observed, expected = weights @ self.apart, (n**2 - (counts**2).sum(axis=1)) / (n - 1)
        else:
            place = self._places(counts)
            first, second = (counts * place).sum(axis=1), (counts * place**2).sum(axis=1)
            expected = 2 * (n * second - first**2) / (n - 1)
            if self.level == "interval":
                observed = weights @ self.apart
            else:
                width = len(self.values)
                pairs = (weights @ self.apart.reshape(len(self.sizes), -1)).reshape(-1, width, width)
                observed = 2 * (second - np.einsum("rv,rvw,rw->r", place, pairs, place))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Array = np.where(expected > 0, 1 - observed / expected, np.nan)
        return found

    def _places(self, counts: Array) -> Array:
        """(R, V) the position of each value: the value itself, or its midrank among all values."""
        if self.level == "interval":
            return np.broadcast_to(self.values, counts.shape)
        ranks: Array = counts.cumsum(axis=1) - counts / 2
        return ranks

    def left_out(self) -> Array:
        """(C,) alpha without each task."""
        count = len(self.sizes)
        parts = []
        for start in range(0, count, _BLOCK):
            weights = np.ones((min(_BLOCK, count - start), count))
            weights[np.arange(len(weights)), start + np.arange(len(weights))] = 0.0
            parts.append(self.alpha(weights))
        found: Array = np.concatenate(parts)
        return np.where(np.isnan(found), float(self.alpha(np.ones((1, count)))[0]), found)

    def differ(self) -> float:
        """How often two values drawn from all of them differ."""
        n, counts = self.sizes.sum(), self.counts.sum(axis=0)
        return float((n**2 - (counts**2).sum()) / (n * (n - 1)))


def _undefined(why: str, n: int) -> Measurement:
    return Measurement(math.nan, math.nan, math.nan, n, note=why)


def _unit_values(by: AgreementBy, answers: Answers, votes: Votes) -> tuple[UnitValues, UnitValues]:
    """The values for alpha and for raw agreement in this mode."""
    if by == "choice":
        choices = UnitValues(answers.task, _among(answers).astype(np.float64), answers.task)
        return choices, choices
    if by == "side":
        side = _sides(answers)
        strength = np.where(np.isnan(votes.strength), 1.0, votes.strength)
        graded = np.where(answers.best == BAD, np.nan, np.where(answers.best == TIE, 0.0, side * strength))
        sides = UnitValues(answers.task, side.astype(np.float64), answers.task)
        return UnitValues(answers.task, graded, answers.task), sides
    rows, columns = np.nonzero(answers.items >= 0)
    units = answers.task[rows] * len(answers.names) + answers.items[rows, columns]
    if by == "number":
        values = numbers(votes)[rows, columns]
        given = ~np.isnan(values)
        rated = UnitValues(units[given], values[given], answers.task[rows][given])
        return rated, rated
    places = _midranks(answers)
    return UnitValues(units, places[rows, columns], answers.task[rows]), _orders(answers, places)


def _among(answers: Answers) -> Array:
    """(N,) index of the picked candidate among the task's candidates sorted by id, or TIE, BAD."""
    smaller = (answers.items >= 0) & (answers.items < answers.winner[:, None])
    found: Array = np.where(answers.best >= 0, smaller.sum(axis=1), answers.best)
    return found


def _sides(answers: Answers) -> Array:
    """(N,) 1 where the candidate with the first id won, -1 where another did, 0 for ties, BAD."""
    found: Array = np.where(answers.best >= 0, 1 - 2 * np.minimum(_among(answers), 1), answers.best)
    return np.where(answers.best == TIE, 0, np.where(answers.best == OTHER, 0, found))


def _midranks(answers: Answers) -> Array:
    """(N, K) mean rank of each candidate, shared by ties; NaN where it is unranked."""
    ranks = np.where((answers.best == TIE)[:, None] & (answers.ranks == 0).all(axis=1)[:, None], 1, answers.ranks)
    ranks = np.where(answers.items >= 0, ranks, 0).astype(np.float64)
    ranks[ranks == 0] = np.nan
    with np.errstate(invalid="ignore"):
        better = (ranks[:, None, :] < ranks[:, :, None]).sum(axis=2)
        equal = (ranks[:, None, :] == ranks[:, :, None]).sum(axis=2)
    return np.where(np.isnan(ranks), np.nan, better + (equal + 1) / 2)


def _orders(answers: Answers, places: Array) -> UnitValues:
    """For each pair of candidates of a task, which one is better (-1, 0 or 1): one unit per pair."""
    count = len(answers.names)
    order = np.argsort(np.where(answers.items >= 0, answers.items, count), axis=1, kind="stable")
    items, sorted_places = np.take_along_axis(answers.items, order, axis=1), np.take_along_axis(places, order, axis=1)
    units, values, tasks = [], [], []
    width = items.shape[1]
    for i in range(width):
        for j in range(i + 1, width):
            value = np.sign(sorted_places[:, j] - sorted_places[:, i])
            rows = np.flatnonzero(~np.isnan(value) & (items[:, j] >= 0))
            units.append((answers.task[rows] * count + items[rows, i]) * count + items[rows, j])
            values.append(value[rows])
            tasks.append(answers.task[rows])
    if not units:
        return UnitValues(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))
    return UnitValues(np.concatenate(units), np.concatenate(values), np.concatenate(tasks))

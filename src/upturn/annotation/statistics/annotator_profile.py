"""Each annotator's counted votes, and how often the others gave the same answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.annotation.statistics.votes import countable, read
from upturn.types import Array, Votes


@dataclass(frozen=True)
class ProfileCheck:
    """The result of one check for P annotators.

    people (P,) names;  value, low, high (P,) the statistic with its 95% interval;  n (P,) answers that it is based on
    p      (P,) p-value under a careful annotator, NaN where it is undefined
    named  (P,) bool: flagged by this check (Holm 1979, over annotators, at the level of the check)
    words  (P,) the finding as text;  note: why the check is undefined for all annotators, or ""
    """

    name: str
    people: Array
    value: Array
    low: Array
    high: Array
    n: Array
    p: Array
    named: Array
    words: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Counted:
    """Votes that count, compared with those of the other annotators of the same task.

    gain (N,) share of the others who picked the same, minus the expected share of a guess; NaN where nobody else
    answered, or the vote is not a pick
    """

    people: Array
    person: Array
    best: Array
    shown: Array
    seconds: Array
    moment: Array
    mode: Array
    items: Array
    task: Array
    gain: Array
    others: Array  # (N,) how many others answered the task
    picks: Array  # (N,) how many others picked a candidate

    @classmethod
    def of(cls, votes: Votes) -> Counted:
        votes = votes.take(np.flatnonzero(countable(votes)[0]))
        answers = read(votes)
        picked = answers.best >= 0
        slots = answers.task * (len(answers.names) + 3) + np.where(picked, answers.winner, answers.best) + 3
        _, slot, same = np.unique(slots, return_inverse=True, return_counts=True)
        task_size = np.bincount(answers.task)[answers.task] if len(answers) else answers.task
        task_picks = np.bincount(answers.task, weights=picked)[answers.task] if len(answers) else answers.task
        others, picks = task_size - 1, task_picks - picked
        with np.errstate(invalid="ignore", divide="ignore"):
            gain = ((same[slot] - 1) - picks / answers.counts) / others
        gain = np.where(picked & (others > 0), gain, np.nan)
        return cls(
            answers.people, answers.person, answers.best, answers.counts, votes.seconds, votes.moment,
            votes.mode.astype(str), answers.items, answers.task, gain, others, picks,
        )

    def sums(self, values: Array, rows: Array) -> Array:
        """(P,) sums of (N,) values over some rows."""
        found: Array = np.bincount(self.person[rows], weights=values[rows], minlength=len(self.people))
        return found


def nothing(name: str, found: Counted, why: str) -> ProfileCheck:
    blank = np.full(len(found.people), np.nan)
    none = np.zeros(len(found.people))
    return ProfileCheck(name, found.people, blank, blank, blank, none.astype(np.int64), blank, none.astype(bool),
                 ("",) * len(found.people), why)


def holm(p: Array, alpha: float) -> Array:
    """(P,) bool: rejected with family-wise error ``alpha`` (Holm 1979, Scand. J. Statistics 6); NaN is not tested."""
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    limits = alpha / np.arange(len(order), 0, -1)
    fails = np.flatnonzero(p[order] > limits)
    out = np.zeros(len(p), dtype=bool)
    out[order[: fails[0] if len(fails) else len(order)]] = True
    return out

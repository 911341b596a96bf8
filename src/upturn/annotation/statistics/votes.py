"""Votes as numbers: who said what of which candidates, and which of them count.

Shapes: N votes, K the most candidates that one shows, P people, T tasks, I candidates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from upturn.annotation.vote_mode import gives
from upturn.types import WORST, Array, Votes

IMPLICIT = ("studio",)  # modes that say something by what was done, not by what was asked
TIE, BAD, OTHER = -1, -2, -3  # instead of a position: cannot tell, all are bad, no answer


@dataclass(frozen=True)
class Answers:
    """Votes as arrays; all columns have the votes' order.

    people, tasks, names  the different ones, sorted: codes below are places in them
    person, task  (N,) codes
    items         (N, K) codes of the candidates by position on the screen, -1 where fewer were shown
    ranks         (N, K) 1 is best, equal is a tie, 0 nothing was said; of scores, the highest is 1
    best          (N,) position of the one that was put first, or TIE, BAD, OTHER
    """

    people: Array
    tasks: Array
    names: Array
    person: Array
    task: Array
    items: Array
    ranks: Array
    best: Array

    def __len__(self) -> int:
        return len(self.person)

    @cached_property
    def counts(self) -> Array:
        """(N,) how many candidates were shown."""
        counts: Array = (self.items >= 0).sum(axis=1)
        return counts

    @cached_property
    def winner(self) -> Array:
        """(N,) code of the candidate that was put first, or TIE, BAD, OTHER."""
        found: Array = np.where(self.best >= 0, self.items[np.arange(len(self)), np.maximum(self.best, 0)], self.best)
        return found


def read(votes: Votes) -> Answers:
    """The votes as numbers. A tie, by word or because all that were ranked are equal, is TIE; a rating is its order."""
    people, person = coded(votes.person)
    tasks, task = coded(votes.task)
    width = max((len(shown) for shown in votes.shown), default=1) or 1
    names, flat = coded([name for shown in votes.shown for name in shown])
    sizes = np.array([len(shown) for shown in votes.shown], dtype=np.int64)
    items = np.full((len(votes), width), -1, dtype=np.int64)
    there = np.arange(width) < sizes[:, None]
    items[there] = flat
    ranks = _ranks(votes, there)
    return Answers(people, tasks, names, person, task, items, ranks, _best(votes.action.astype(str), ranks, there))


def coded(values: Array | Sequence[str]) -> tuple[Array, Array]:
    """The different values as sorted str, and the place of each."""
    names, places = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    return names, places.reshape(-1).astype(np.int64)


def table(rows: Array, width: int, fill: float) -> Array:
    """(N, width) float64 of tuples of uneven length."""
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    out = np.full((len(rows), width), fill, dtype=np.float64)
    out[np.arange(width) < sizes[:, None]] = [value for row in rows for value in row]
    return out


def _ranks(votes: Votes, there: Array) -> Array:
    width = there.shape[1]
    ranks = table(votes.ranks, width, 0).astype(np.int64)
    scores = table(votes.scores, width, np.nan)
    rated = (ranks == 0).all(axis=1) & ~np.isnan(scores).all(axis=1)
    if rated.any():
        order = np.argsort(-scores[rated], axis=1, kind="stable")  # NaN stands last
        ordered = np.take_along_axis(scores[rated], order, axis=1)
        falls = np.zeros(ordered.shape, dtype=np.int64)
        falls[:, 1:] = ordered[:, 1:] < ordered[:, :-1]
        dense = np.zeros_like(falls)
        np.put_along_axis(dense, order, falls.cumsum(axis=1) + 1, axis=1)
        ranks[rated] = np.where(np.isnan(scores[rated]), 0, dense)
    return np.where(there, ranks, 0)


def _best(action: Array, ranks: Array, there: Array) -> Array:
    said = ranks > 0
    first = said & (ranks == np.where(said, ranks, np.iinfo(np.int64).max).min(axis=1, keepdims=True))
    one = np.where(first.sum(axis=1) == 1, first.argmax(axis=1), TIE)
    # one candidate alone with a rank is a pick of those shown; alone on the screen, nothing was compared
    out = np.where(said.any(axis=1) & (there.sum(axis=1) > 1), one, OTHER)
    out = np.where((action == "tie"), TIE, out)
    out = np.where((action == "bad"), BAD, out)
    found: Array = np.where(np.isin(action, ("said", "tie", "bad")), out, OTHER)
    return found


def countable(votes: Votes) -> tuple[Array, Counter[str]]:
    """(N,) bool: the votes that say which candidates people prefer, and how many others there are, by reason.

    Left out are what is no such answer (skipped, corrected, said by download alone, nothing said), what was asked to
    measure the person (gold tasks, repeated ones), and second answers of a person to one task: the first counts.
    """
    answers = read(votes)
    alone = gives(votes.mode, "rating") & (answers.counts < 2) & ~np.isnan(numbers(votes)).all(axis=1)
    return _counted(votes, answers, {
        "ratings of one candidate, which compare it with nothing": alone, "nothing was said": answers.best == OTHER,
    })


def numbers(votes: Votes) -> Array:
    """(N, K) the numbers that were given, NaN where none was; "useless" is the lowest."""
    width = max((len(shown) for shown in votes.shown), default=1) or 1
    there = np.arange(width) < np.array([len(shown) for shown in votes.shown], dtype=np.int64).reshape(-1, 1)
    useless = (votes.action.astype(str) == "bad")[:, None] & there
    return np.where(useless, WORST, table(votes.scores, width, np.nan))


def valued(votes: Votes) -> Array:
    """(N,) bool: the ratings that say a number. As ``countable``, but of one candidate alone they count, too: nothing
    is compared, and still it is said how good it is."""
    return _counted(votes, read(votes), {"nothing was said": np.isnan(numbers(votes)).all(axis=1)})[0]


def _counted(votes: Votes, answers: Answers, silent: Mapping[str, Any]) -> tuple[Array, Counter[str]]:
    """What ``countable`` gives, where the votes of ``silent`` (N,) bool, by reason, say nothing."""
    mode, action, check = (column.astype(str) for column in (votes.mode, votes.action, votes.check))
    reasons = np.full(len(votes), "", dtype=object)

    def because(rows: Array, reason: str) -> None:
        reasons[rows & (reasons == "")] = reason

    because(np.isin(mode, IMPLICIT), "said by use alone (studio)")
    because(action == "skip", "skipped")
    because((action == "edit") | gives(mode, "correction"), "corrections, which are examples and no votes")
    because(check == "gold", "gold tasks")
    because(check == "repeat", "repeated to measure the person")
    for reason, rows in silent.items():
        because(rows, reason)
    open_rows = np.flatnonzero(reasons == "")
    order = open_rows[np.argsort(votes.moment[open_rows], kind="stable")]
    pairs = answers.person[order] * len(answers.tasks) + answers.task[order]
    again = np.ones(len(order), dtype=bool)
    again[np.unique(pairs, return_index=True)[1]] = False
    reasons[order[again]] = "answered a second time"
    left = Counter(str(reason) for reason in reasons if reason)
    return np.asarray(reasons == "", dtype=bool), left

"""Votes as arrays: annotators, tasks, candidates, ranks and scores, and which votes count.

Shapes: N votes, K the largest number of candidates in a vote, P annotators, T tasks, I candidates.
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

CORRECTIONS = "corrections, which are examples, not votes"  # why they are left out of comparisons

IMPLICIT = ("studio",)  # modes whose votes are inferred from use, not from a question
TIE, BAD, OTHER = -1, -2, -3  # instead of a position: cannot tell, all are bad, no answer


@dataclass(frozen=True)
class Answers:
    """Votes as arrays; all columns have the votes' order.

    people, tasks, names  distinct values, sorted: codes below index them
    person, task  (N,) codes
    items         (N, K) codes of the candidates by position on the screen, -1 where there are fewer
    ranks         (N, K) 1 is best, equal is a tie, 0 is unranked; of scores, the highest is 1
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
        """(N,) number of displayed candidates."""
        counts: Array = (self.items >= 0).sum(axis=1)
        return counts

    @cached_property
    def winner(self) -> Array:
        """(N,) code of the candidate that was put first, or TIE, BAD, OTHER."""
        found: Array = np.where(self.best >= 0, self.items[np.arange(len(self)), np.maximum(self.best, 0)], self.best)
        return found


def read(votes: Votes) -> Answers:
    """The votes as arrays. TIE is an explicit tie or equal ranks for all; a rating is read as a ranking."""
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
    """The distinct values as sorted str, and the index of each."""
    names, places = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)
    return names, places.reshape(-1).astype(np.int64)


def table(rows: Array, width: int, fill: float) -> Array:
    """(N, width) float64 of tuples of different lengths."""
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
        order = np.argsort(-scores[rated], axis=1, kind="stable")  # NaN sorts last
        ordered = np.take_along_axis(scores[rated], order, axis=1)
        falls = np.zeros(ordered.shape, dtype=np.int64)
        falls[:, 1:] = ordered[:, 1:] < ordered[:, :-1]
        dense = np.zeros_like(falls)
        np.put_along_axis(dense, order, falls.cumsum(axis=1) + 1, axis=1)
        ranks[rated] = np.where(np.isnan(scores[rated]), 0, dense)
    return np.where(there, ranks, 0)


def _best(action: Array, ranks: Array, there: Array) -> Array:
    ranked = ranks > 0
    first = ranked & (ranks == np.where(ranked, ranks, np.iinfo(np.int64).max).min(axis=1, keepdims=True))
    one = np.where(first.sum(axis=1) == 1, first.argmax(axis=1), TIE)
    # a single ranked candidate is a pick; a candidate displayed alone is compared with nothing
    out = np.where(ranked.any(axis=1) & (there.sum(axis=1) > 1), one, OTHER)
    out = np.where((action == "tie"), TIE, out)
    out = np.where((action == "bad"), BAD, out)
    found: Array = np.where(np.isin(action, ("said", "tie", "bad")), out, OTHER)
    return found


def countable(votes: Votes) -> tuple[Array, Counter[str]]:
    """(N,) bool: the votes that compare candidates, and how many other votes there are, by reason.

    Left out are votes that compare nothing (skipped, corrections, downloads, empty answers), those that check the
    annotator (gold tasks, repeats), and second answers of an annotator to one task: the first counts.
    """
    answers = read(votes)
    alone = gives(votes.mode, "rating") & (answers.counts < 2) & ~np.isnan(numbers(votes)).all(axis=1)
    return _counted(votes, answers, {
        "ratings of one candidate, which compare it with nothing": alone, "empty answers": answers.best == OTHER,
    })


def numbers(votes: Votes) -> Array:
    """(N, K) the numbers that were given, NaN where none was; "useless" is the lowest."""
    width = max((len(shown) for shown in votes.shown), default=1) or 1
    there = np.arange(width) < np.array([len(shown) for shown in votes.shown], dtype=np.int64).reshape(-1, 1)
    useless = (votes.action.astype(str) == "bad")[:, None] & there
    return np.where(useless, WORST, table(votes.scores, width, np.nan))


def valued(votes: Votes) -> Array:
    """(N,) bool: the ratings with a number. As ``countable``, but ratings of a single candidate count too: they give
    its quality without a comparison."""
    return _counted(votes, read(votes), {"empty answers": np.isnan(numbers(votes)).all(axis=1)})[0]


def _counted(votes: Votes, answers: Answers, uninformative: Mapping[str, Any]) -> tuple[Array, Counter[str]]:
    """The result of ``countable``, where the rows of ``uninformative`` (N,) bool, by reason, do not count."""
    mode, action, check = (column.astype(str) for column in (votes.mode, votes.action, votes.check))
    reasons = np.full(len(votes), "", dtype=object)

    def exclude(rows: Array, reason: str) -> None:
        reasons[rows & (reasons == "")] = reason

    exclude(np.isin(mode, IMPLICIT), "implicit votes (studio)")
    exclude(action == "skip", "skipped")
    exclude((action == "edit") | gives(mode, "correction"), CORRECTIONS)
    exclude(check == "gold", "gold tasks")
    exclude(check == "repeat", "repeated to check the annotator")
    for reason, rows in uninformative.items():
        exclude(rows, reason)
    open_rows = np.flatnonzero(reasons == "")
    order = open_rows[np.argsort(votes.moment[open_rows], kind="stable")]
    pairs = answers.person[order] * len(answers.tasks) + answers.task[order]
    again = np.ones(len(order), dtype=bool)
    again[np.unique(pairs, return_index=True)[1]] = False
    reasons[order[again]] = "answered a second time"
    left = Counter(str(reason) for reason in reasons if reason)
    return np.asarray(reasons == "", dtype=bool), left

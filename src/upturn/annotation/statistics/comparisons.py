"""Groups candidates into sets that votes compared with one another, and assigns each vote to its set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from upturn.annotation.statistics.votes import BAD, TIE, Answers, countable, read
from upturn.types import Array, Votes


@dataclass(frozen=True)
class Compared:
    """N votes that count, about I candidates in G sets of candidates compared directly or through others.

    answers   the votes as numbers;  rows (N,) which votes they are
    weight    (N,) above 0
    set_of    (I,) the set of each candidate;  size (G,) how many it has
    group     (N,) the set of each vote
    left_out  why the other votes do not count
    """

    answers: Answers
    rows: Array
    weight: Array
    set_of: Array
    size: Array
    group: Array
    left_out: Counter[str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sets(self) -> int:
        return len(self.size)

    @property
    def slots(self) -> Array:
        """(I + 2 G,) the set of each outcome: a candidate is best; then for each set, they tie, all are bad."""
        return np.concatenate([self.set_of, np.repeat(np.arange(self.sets), 2)])

    @property
    def slot(self) -> Array:
        """(N,) the outcome that each vote names."""
        count, best, winner = len(self.set_of), self.answers.best, self.answers.winner
        special = count + 2 * self.group + (best == BAD)
        return np.where((best == TIE) | (best == BAD), special, winner)


def compared(votes: Votes, weights: Array | None = None) -> Compared:
    """The votes that count, by sets of candidates. ``weights`` (N,): votes of weight 0 are left out and counted."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    kept, left = countable(votes)
    if weights is not None:
        left["of annotators who were set aside"] += int((kept & (weights == 0)).sum())
        kept &= weights > 0
    rows = np.flatnonzero(kept)
    answers = read(votes.take(rows))
    count = len(answers.names)
    row, column = np.nonzero(answers.items >= 0)
    links = (np.ones(len(row)), (answers.items[row, column], answers.items[row, 0]))
    sets, set_of = connected_components(coo_array(links, shape=(count, count)), directed=False)
    weight = np.ones(len(rows)) if weights is None else np.asarray(weights, dtype=np.float64)[rows]
    group = set_of[answers.items[:, 0]] if len(rows) else np.zeros(0, dtype=np.int64)
    return Compared(
        answers, rows, weight, set_of.astype(np.int64), np.bincount(set_of, minlength=sets), group.astype(np.int64),
        +left,
    )

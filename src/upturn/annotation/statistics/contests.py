"""Votes as contests between players (models, rounds, candidates): who took part, and who won, or that all tied.

A pick of one of K is one contest. A ranking is several: the best of all, then the best of the others, and so on
(Plackett 1975; Luce 1959). Players that share a place in a ranking each beat all that come after, and are not compared
with one another; if all tie, the contest has no winner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from upturn.annotation.statistics.votes import BAD, TIE, Answers, coded, countable, read
from upturn.types import Array, Votes

TIED = -1  # in the place of a winner


@dataclass(frozen=True)
class Contests:
    """S contests among n players.

    names   (n,) the players
    there   (S, K) their numbers, -1 where fewer took part; a player may take part in a contest twice
    won     (S,) position of the winner, or TIED (with one another, all of them)
    may_tie (S,) whether a tie of all was a possible answer
    vote    (S,) which vote it comes from;  task, person (S,) codes, for clustering
    weight  (S,) its weight
    """

    names: Array
    there: Array
    won: Array
    may_tie: Array
    vote: Array
    task: Array
    person: Array
    weight: Array

    def __len__(self) -> int:
        return len(self.won)

    def take(self, rows: Array) -> Contests:
        """These contests among the same players."""
        columns = {name: getattr(self, name)[rows] for name in ("there", "won", "may_tie", "vote", "task", "person",
                                                                "weight")}
        return replace(self, **columns)


def contests(
    votes: Votes, players: Mapping[str, str] | None = None, weights: Array | None = None
) -> tuple[Contests, Counter[str]]:
    """The contests of all votes that count, and how many votes do not compare the players, by reason.

    ``players`` names the player of each sample id (such as the model that made it); None: each candidate is its own.
    ``weights`` (N,) of the votes, 1 unless given; votes of weight 0 are left out.
    """
    kept, left = countable(votes)
    if weights is not None:
        left["of annotators who were set aside"] += int((kept & (weights == 0)).sum())
        kept &= weights > 0
    answers = read(votes.take(np.flatnonzero(kept)))
    counts = np.ones(len(answers)) if weights is None else np.asarray(weights, dtype=np.float64)[kept]
    names, items, known = _named(answers, players)
    bad = answers.best == BAD
    left["all candidates are bad"] += int(bad.sum())
    left["of candidates that are none of these"] += int((~bad & ~known).sum())
    alone = known & ~bad & (_different(items) < 2)
    left["all candidates are of one"] += int(alone.sum())
    usable = np.flatnonzero(known & ~bad & ~alone)
    return _stages(names, answers, items, usable, counts), +left


def contests_of(answers: Answers, rows: Array) -> Contests:
    """The contests of some answers, each candidate its own player; ``vote`` is the row of the answer."""
    usable = rows[(answers.best[rows] != BAD) & (answers.counts[rows] > 1)]
    return _stages(answers.names, answers, answers.items, usable, np.ones(len(answers)))


def _named(answers: Answers, players: Mapping[str, str] | None) -> tuple[Array, Array, Array]:
    """Names of the players, (N, K) their numbers, (N,) whether every candidate is one of theirs."""
    there = answers.items >= 0
    if players is None:
        return answers.names, answers.items, np.ones(len(answers), dtype=bool)
    owner: Array = np.array([players.get(str(name), "") for name in answers.names], dtype=object)
    known = owner != ""
    names, numbers = coded(owner[known])
    of_name = np.full(len(answers.names), -1, dtype=np.int64)
    of_name[known] = numbers
    items: Array = np.where(there, of_name[np.maximum(answers.items, 0)] if len(of_name) else -1, -1)
    complete: Array = np.logical_not((there & (items < 0)).any(axis=1))
    return names, items, complete


def _different(items: Array) -> Array:
    """(N,) how many different players are there."""
    ordered = np.sort(items, axis=1)
    fresh = np.ones(items.shape, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    counts: Array = (fresh & (ordered >= 0)).sum(axis=1)
    return counts


def _stages(names: Array, answers: Answers, items: Array, rows: Array, counts: Array) -> Contests:
    there = items[rows] >= 0
    ranks = np.where(there, answers.ranks[rows], 0)
    picked = ranks.max(axis=1, initial=0) == 1  # only the best is ranked: the others were displayed and not picked
    ranks = np.where(picked[:, None] & there & (ranks == 0), 2, ranks)
    all_tied = (answers.best[rows] == TIE) & (_different(np.where(ranks > 0, ranks, -1)) < 2)
    which, left, won = [np.flatnonzero(all_tied)], [there[all_tied]], [np.full(int(all_tied.sum()), TIED)]
    may = [np.ones(int(all_tied.sum()), dtype=bool)]
    for place in range(1, int(ranks.max(initial=0))):
        here, after = ranks == place, ranks > place
        of, winner = np.nonzero(here & (after.any(axis=1) & ~all_tied)[:, None])
        rest = after[of]
        rest[np.arange(len(of)), winner] = True
        which.append(of)
        left.append(rest)
        won.append(winner)
        may.append(rest.sum(axis=1) == there[of].sum(axis=1))  # the choice among all might have been a tie
    vote = rows[np.concatenate(which)]
    return Contests(
        names, np.where(np.concatenate(left), items[vote], -1), np.concatenate(won), np.concatenate(may), vote,
        answers.task[vote], answers.person[vote], counts[vote],
    )

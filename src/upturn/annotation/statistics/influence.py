"""Shares of annotators and teams in the votes and in what they decide, and the outcome without each team."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from upturn.annotation.statistics.aggregation import Outcomes, Rule, by_majority
from upturn.annotation.statistics.comparisons import compared
from upturn.annotation.statistics.ranking import Ranking, ranking
from upturn.annotation.statistics.votes import coded, countable, valued
from upturn.statistics.intervals import wilson
from upturn.types import Array, Votes

By = Literal["person", "team"]
# The report warns of a larger share of what trains the model: beyond a third, one annotator can outvote two others.
LIMIT = 1 / 3
_ROUNDING = 1e-9  # three with equal shares are at the limit, not beyond it


@dataclass(frozen=True)
class Shares:
    """The shares of P annotators, or teams, the largest first.

    names    (P,);  votes (P,) that count;  share (P,) of them
    decides  (P,) share of what trains the model: each set of candidates counts once, and so does each candidate that
             was rated alone; its voters share it by weight
    in_effect  1 / sum of squares of ``decides``: the effective number of annotators (Simpson 1949)
    """

    by: By
    names: Array
    votes: Array
    share: Array
    decides: Array
    in_effect: float

    def warnings(self, limit: float = LIMIT) -> tuple[str, ...]:
        """A sentence for each annotator or team whose share of what trains the model exceeds the limit."""
        return tuple(
            f"{name or 'annotators without a team'}: {share:.0%} of what trains the model, beyond {limit:.0%}"
            for name, share in zip(self.names, self.decides, strict=True) if share > limit + _ROUNDING
        )


def shares(votes: Votes, by: By = "person", weights: Array | None = None) -> Shares:
    """The share of each annotator, or team, in the votes that count and in the outcomes; ``weights`` (N,)."""
    compares = countable(votes)[0]
    rates = valued(votes) & ~compares
    counted = np.flatnonzero(compares | rates)
    names, who = coded(getattr(votes, by)[counted])
    given = np.bincount(who, minlength=len(names))
    found = compared(votes, weights)
    weigh = np.ones(len(votes)) if weights is None else np.asarray(weights, dtype=np.float64)
    alone = np.flatnonzero(rates & (weigh > 0))
    rated, candidate = coded([votes.shown[row][0] for row in alone.tolist()])  # decided by all its ratings
    sets, group = found.sets + len(rated), np.concatenate([found.group, found.sets + candidate])
    weight, rows = np.concatenate([found.weight, weigh[alone]]), np.concatenate([found.rows, alone])
    total = np.bincount(group, weights=weight, minlength=sets)
    place = np.searchsorted(names, getattr(votes, by)[rows].astype(str))
    weight = weight / total[group] / max(sets, 1)
    decides = np.bincount(place, weights=weight, minlength=len(names)).astype(np.float64)
    order = np.lexsort((names, -given, -decides))
    squares = float((decides**2).sum())
    return Shares(
        by, names[order], given[order], (given / max(len(counted), 1))[order], decides[order],
        1 / squares if squares > 0 else 0.0,
    )


@dataclass(frozen=True)
class Without:
    """The outcomes without one team, or annotator.

    changed  sets of candidates with another outcome;  lost sets without other votes;  of all sets
    low, high  95% interval of changed / (of - lost): with the sets as a random sample
    ranking  of the players by the others' votes; None where there are no players
    """

    name: str
    votes: int
    changed: int
    lost: int
    of: int
    low: float
    high: float
    ranking: Ranking | None


def leave_out(
    votes: Votes, by: By = "team", rule: Rule = by_majority, weights: Array | None = None,
    players: Mapping[str, str] | None = None,
) -> tuple[Without, ...]:
    """Leaves out each team, or annotator, in turn and computes the outcomes by ``rule`` without its votes."""
    whole = rule(votes, weights)
    counted = countable(votes)[0]
    names, who = coded(getattr(votes, by))
    found = []
    for i, name in enumerate(names.tolist()):
        rows = np.flatnonzero(who != i)
        own = None if weights is None else weights[rows]
        rest = votes.take(rows)
        changed, lost = _compared(whole, rule(rest, own) if countable(rest)[0].any() else None)
        low, high = wilson(changed / max(len(whole) - lost, 1), len(whole) - lost)
        placed = ranking(rest, players, own) if players is not None and countable(rest)[0].any() else None
        found.append(Without(name, int(counted[who == i].sum()), changed, lost, len(whole), low, high, placed))
    return tuple(found)


def _compared(whole: Outcomes, rest: Outcomes | None) -> tuple[int, int]:
    """How many sets have another outcome, and how many have no outcome left.

    A set may split without the votes that connected it: its parts are found by their tasks.
    """
    if rest is None:
        return 0, len(whole)
    outcome_of = {task: (rest.kind[i], rest.winner[i]) for i in range(len(rest)) for task in rest.tasks[i]}
    changed = lost = 0
    winner = whole.winner
    for i in range(len(whole)):
        left = {outcome_of[task] for task in whole.tasks[i] if task in outcome_of}
        lost += not left
        changed += bool(left) and left != {(whole.kind[i], winner[i])}
    return changed, lost

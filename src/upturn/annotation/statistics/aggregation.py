"""Aggregates votes on each set of candidates: the best one, a tie, or all bad, with the uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from upturn.annotation.statistics.annotator_model import MOST, noisy_choice
from upturn.annotation.statistics.comparisons import Compared, compared
from upturn.annotation.statistics.dawid_skene_choice import winners
from upturn.annotation.statistics.votes import BAD, TIE
from upturn.types import Array, Samples, Votes, objects

WINNER, TIED, ALL_BAD = "winner", "tie", "bad"
Rule = Callable[[Votes, Array | None], "Outcomes"]


@dataclass(frozen=True)
class Outcomes:
    """The outcome of each of G sets of candidates.

    rule        the aggregation rule, for display
    candidates  (G,) tuples of sample ids;  tasks (G,) tuples of the tasks that display them
    kind        (G,) "winner", "tie" (also for equal votes) or "bad"
    ranks       (G,) tuples parallel to the candidates: 1 is best, equal is a tie, 0 is unranked: after a pick only
                the winner has a rank, after "bad" no candidate
    scores      (G,) tuples, one score per candidate: a share of the votes, a probability of being best, or nats
    strength    (G,) in [0, 1]: probability of the outcome minus that of the next best; 0 where votes are equal
    votes       (G,) number of votes on the set
    left_out    number of votes that do not count, by reason
    """

    rule: str
    candidates: Array
    tasks: Array
    kind: Array
    ranks: Array
    scores: Array
    strength: Array
    votes: Array
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def winner(self) -> Array:
        """(G,) sample id of the best candidate, "" where there is none."""
        return objects([
            str(names[ranks.index(1)]) if kind == WINNER else ""
            for names, ranks, kind in zip(self.candidates, self.ranks, self.kind, strict=True)
        ])


def by_majority(votes: Votes, weights: Array | None = None) -> Outcomes:
    """Majority of the votes, each with weight 1 (or ``weights`` (N,)).

    "Bad" where more than half of the votes are "bad"; else "tie" where more than half of the others are; else the
    candidate with the most points: 1 for being put first; in a ranking or rating the share of the others ranked below
    it, equal ones count half (Borda 1781). Strength: P(p1 > p2) - P(p2 > p1) of the shares of the first and the next,
    with uniform priors.
    """
    found = compared(votes, weights)
    points, possible = _points(found)
    score = points / np.maximum(possible, 1e-300)
    special = _special(found)
    return _decided("majority of votes", votes, found, score, special, points)


def by_winners(votes: Votes, weights: Array | None = None) -> Outcomes:
    """The most probable outcome by ``dawid_skene_choice.winners``, annotators weighted by accuracy."""
    found = compared(votes, weights)
    fitted = winners(found)
    count = len(found.set_of)
    special = fitted.posterior[count:].reshape(-1, 2)
    rule = "annotators weighted by estimated accuracy (Dawid–Skene)"
    return _decided(rule, votes, found, fitted.posterior[:count], special)


def by_rewards(votes: Votes, weights: Array | None = None) -> Outcomes:
    """The highest reward by ``annotator_model.noisy_choice``; scores are rewards in nats.

    Whether all are bad, or tie, is decided by majority, votes weighted by the annotator's reliability. Votes on sets
    with more candidates than the model accepts are left out and counted.
    """
    found = compared(votes, weights)
    large = found.rows[found.size[found.group] > MOST]
    if len(large):
        usable = np.ones(len(votes)) if weights is None else np.array(weights, dtype=np.float64)
        usable[large] = 0.0
        found = compared(votes, usable)
        found.left_out["of annotators who were set aside"] -= len(large)
        found.left_out[f"of more than {MOST} candidates in one set"] += len(large)
        found = replace(found, left_out=+found.left_out)
    fitted = noisy_choice(found)
    special = _special(found, fitted.reliability[found.answers.person])
    return _decided(
        "rewards of candidates and reliability of annotators (noisy Plackett–Luce)", votes, found, fitted.reward,
        special, best=fitted.best,
    )


RULES: Mapping[str, Rule] = {"majority": by_majority, "winners": by_winners, "rewards": by_rewards}


def columns(outcomes: Outcomes, samples: Samples) -> dict[str, Array]:
    """The outcomes of N samples, as the columns that objectives on groups and the curator ``picked`` read.

    "rank" (N,) int64, "score" (N,) float64 (NaN where there is none), "strength" (N,) float64 (1 without votes),
    "vote" (N,) "winner", "tie", "bad" or "" (without votes): the outcome of the candidate's set.
    """
    n = len(samples)
    out: dict[str, Array] = {
        "rank": np.zeros(n, dtype=np.int64), "score": np.full(n, np.nan), "strength": np.ones(n),
        "vote": objects([""] * n),
    }
    places: dict[str, list[int]] = {}
    for row, name in enumerate(samples.ids):
        places.setdefault(str(name), []).append(row)
    for i in range(len(outcomes)):
        columns_of_set = zip(outcomes.candidates[i], outcomes.ranks[i], outcomes.scores[i], strict=True)
        for name, rank, score in columns_of_set:
            for row in places.get(str(name), ()):
                out["rank"][row], out["score"][row] = rank, score
                out["strength"][row], out["vote"][row] = outcomes.strength[i], outcomes.kind[i]
    return out


def _points(found: Compared) -> tuple[Array, Array]:
    """(I,) weighted points of each candidate, and the weight of the votes that could have given it one."""
    answers = found.answers
    there = answers.items >= 0
    ranks = np.where(there, answers.ranks, 0)
    named = ranks > 0
    one_kind = ranks.max(axis=1, initial=0) == 1
    below = ((ranks[:, :, None] < ranks[:, None, :]) & named[:, :, None] & named[:, None, :]).sum(axis=2)
    equal = ((ranks[:, :, None] == ranks[:, None, :]) & named[:, :, None] & named[:, None, :]).sum(axis=2) - 1
    others = np.maximum(named.sum(axis=1, keepdims=True) - 1, 1)
    borda = np.where(named, (below + equal / 2) / others, 0.0)
    first = named / np.maximum(named.sum(axis=1, keepdims=True), 1)
    given = np.where(one_kind[:, None], first, borda)
    # a shared first place in a ranking still gives points; a tie of all, and "bad", do not
    informative = (answers.best != BAD) & ~((answers.best == TIE) & (_kinds(ranks, there) < 2))
    usable = there & informative[:, None] & (named | one_kind[:, None])
    count = len(found.set_of)
    rows, places = np.nonzero(usable)
    items = answers.items[rows, places]
    points = np.bincount(items, weights=given[rows, places] * found.weight[rows], minlength=count)
    return points, np.bincount(items, weights=found.weight[rows], minlength=count)


def _kinds(ranks: Array, there: Array) -> Array:
    """(N,) number of distinct ranks, unranked included, among the displayed candidates: 1 where all are equal."""
    low = np.where(there, ranks, np.iinfo(np.int64).max).min(axis=1)
    found: Array = 1 + (ranks.max(axis=1) > low)
    return found


def _special(found: Compared, reliability: Array | None = None) -> Array:
    """(G, 2) share of each set's weight that votes "tie", and "bad"."""
    weight = found.weight if reliability is None else found.weight * reliability
    total = np.bincount(found.group, weights=weight, minlength=found.sets)
    best = found.answers.best
    shares = [np.bincount(found.group, weights=weight * (best == kind), minlength=found.sets) for kind in (TIE, BAD)]
    return np.stack(shares, axis=1) / np.maximum(total, 1e-300)[:, None]


def _decided(
    rule: str, votes: Votes, found: Compared, score: Array, special: Array, points: Array | None = None,
    best: Array | None = None,
) -> Outcomes:
    """The outcomes from (I,) scores and (G, 2) shares of "tie" and "bad".

    Strength: from ``points`` as counts where they are given, else from probabilities: ``best`` (I,), or the scores.
    """
    order = np.lexsort((np.arange(len(score)), found.set_of))
    members = np.split(order, np.cumsum(found.size)[:-1]) if found.sets else []
    ordered = np.zeros(found.sets, dtype=bool)  # whether any vote ranks more than the first place
    ordered[found.group[(found.answers.ranks > 1).any(axis=1)]] = True
    total = np.bincount(found.group, weights=found.weight, minlength=found.sets)
    tasks: list[set[str]] = [set() for _ in range(found.sets)]
    for group, row in zip(found.group.tolist(), found.rows.tolist(), strict=True):
        tasks[group].add(str(votes.task[row]))
    kinds, ranks, strength = [], [], np.zeros(found.sets)
    for g, own in enumerate(members):
        kind, rank, sure = _one(score[own], special[g], ordered[g])
        kinds.append(kind)
        ranks.append(rank)
        if points is not None:
            strength[g] = _lead(kind, points[own], special[g] * total[g], total[g])
        else:
            strength[g] = sure if best is None or kind != WINNER else _gap(best[own])
    return Outcomes(
        rule, objects([tuple(found.answers.names[own].tolist()) for own in members]),
        objects([tuple(sorted(names)) for names in tasks]), objects(kinds), objects(ranks),
        objects([tuple(score[own].tolist()) for own in members]), strength,
        np.bincount(found.group, minlength=found.sets), dict(found.left_out),
    )


def _one(score: Array, special: Array, ordered: bool) -> tuple[str, tuple[int, ...], float]:
    """Kind, ranks and strength (a difference of probabilities) of one set."""
    tie, bad = float(special[0]), float(special[1])
    known = np.where(np.isnan(score), -np.inf, score)
    if bad > 0.5:
        return ALL_BAD, (0,) * len(score), bad - max(tie, 1 - bad - tie)
    first = known >= known.max(initial=-np.inf) - 1e-9
    if tie > (1 - bad) / 2 or first.all():
        return TIED, (1,) * len(score), max(tie - (1 - bad - tie), 0.0)
    if first.sum() > 1:
        return TIED, tuple(first.astype(int).tolist()), 0.0
    if not ordered:
        return WINNER, tuple(first.astype(int).tolist()), _gap(score)
    _, place = np.unique(-known, return_inverse=True)
    return WINNER, tuple((place.reshape(-1) + 1).tolist()), _gap(score)


def _gap(shares: Array) -> float:
    """The largest value minus the second largest."""
    top = np.sort(np.nan_to_num(shares))[::-1]
    return float(np.clip(top[0] - top[1], 0.0, 1.0)) if len(top) > 1 else 0.0


def _lead(kind: str, points: Array, special: Array, total: float) -> float:
    """P(p1 > p2) - P(p2 > p1) of two shares, from their counts with a uniform prior."""
    from scipy.special import betainc

    tie, bad = float(special[0]), float(special[1])
    if kind == ALL_BAD:
        first, second = bad, total - bad
    elif kind == TIED:
        first, second = tie, total - bad - tie
    else:
        top = np.sort(points)[::-1]
        first, second = float(top[0]), float(top[1])
    return max(0.0, float(2 * betainc(second + 1, first + 1, 0.5) - 1))

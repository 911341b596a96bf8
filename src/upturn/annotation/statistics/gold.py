"""Accuracy on gold tasks, consistency on repeated tasks, and the vote weights that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from upturn.annotation.statistics.annotator_profile import ProfileCheck
from upturn.annotation.statistics.votes import IMPLICIT, OTHER, coded, read
from upturn.statistics.intervals import wilson
from upturn.types import Array, Votes

LEAST = 5  # answers below which an annotator is not evaluated


@dataclass(frozen=True)
class GoldRecord:
    """The results of P annotators on tasks with a check.

    people (P,) names;  right, answered (P,) counts;  share, low, high (P,) with Wilson's 95% interval, NaN below LEAST
    chance (P,) expected share of a guesser: the mean of 1 / candidates
    skipped  number of skipped tasks, which are not counted
    """

    people: Array
    right: Array
    answered: Array
    share: Array
    low: Array
    high: Array
    chance: Array
    skipped: int


@dataclass(frozen=True)
class Standard:
    """The requirements on an annotator.

    gold, repeats  shares of gold tasks right and of repeated tasks answered the same; None: not required
    set_aside      checks ("guessing", "position", "speed", "drift") whose finding sets an annotator aside

    An annotator whose whole interval is below the standard is set aside: weight 0. If only the observed share is below,
    the weight rises linearly from 0 at chance to 1 at the standard. An annotator exactly at the standard is set aside
    in at most 2.5% of cases.
    """

    gold: float | None = 0.6  # with four candidates guessers reach 0.25, so the weight is 0.5 at 0.425
    repeats: float | None = 0.5
    set_aside: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, level in (("gold", self.gold), ("repeats", self.repeats)):
            if level is not None and not 0 < level <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {level}")


@dataclass(frozen=True)
class Weights:
    """The weight of each annotator's votes, and why. Votes are not deleted: other weights restore them.

    people (P,) names;  weight (P,) in [0, 1];  reasons (P,) str, "" where the weight is 1 and nothing was found
    """

    people: Array
    weight: Array
    reasons: tuple[str, ...]
    by_name: Mapping[str, float] = field(default_factory=dict)

    def of(self, votes: Votes) -> Array:
        """(N,) the weight of each vote; 1 for unknown annotators."""
        return np.array([self.by_name.get(str(name), 1.0) for name in votes.person], dtype=np.float64)


def on_gold(votes: Votes) -> GoldRecord:
    """Right are gold tasks whose known best was put first, alone. "Tie" and "all bad" are wrong."""
    rows = np.flatnonzero((votes.check == "gold") & (votes.right != ""))
    own = votes.take(rows)
    answers = read(own)
    picked = np.array([str(shown[best]) if best >= 0 else "" for shown, best in zip(own.shown, answers.best,
                                                                                     strict=True)], dtype=object)
    return _record(votes, own.person, picked == own.right, answers.best != OTHER, answers.counts)


def on_repeats(votes: Votes) -> GoldRecord:
    """Right are repeated tasks with the same answer as before: the same candidate first, a tie, or all bad.

    Compared with the annotator's first answer to that task; repeats without a first answer are not counted.
    """
    explicit = ~np.isin(votes.mode.astype(str), IMPLICIT)
    rows = np.flatnonzero(explicit)
    own = votes.take(rows)
    answers = read(own)
    _, pair = coded([f"{p}\x1f{t}" for p, t in zip(own.person, own.task, strict=True)])
    repeat = own.check == "repeat"
    order = np.lexsort((own.moment, repeat, pair))  # a pair's first answer, then its repeats
    first = np.zeros(int(pair.max(initial=-1)) + 1, dtype=np.int64)
    first[pair[order[::-1]]] = order[::-1]
    again = np.flatnonzero(repeat & ~repeat[first[pair]]) if len(own) else np.zeros(0, dtype=np.int64)
    before = first[pair[again]]
    known = (answers.best[again] != OTHER) & (answers.best[before] != OTHER)
    same = answers.winner[again] == answers.winner[before]
    return _record(votes, own.person[again], same, known, answers.counts[again])


def _record(votes: Votes, person: Array, good: Array, known: Array, shown: Array) -> GoldRecord:
    people, _ = coded(votes.person)
    place = np.searchsorted(people, person[known].astype(str)) if known.any() else np.zeros(0, dtype=np.int64)
    answered = np.bincount(place, minlength=len(people))
    right = np.bincount(place, weights=good[known], minlength=len(people))
    guess = np.bincount(place, weights=1 / np.maximum(shown[known], 1), minlength=len(people))
    enough = answered >= LEAST
    with np.errstate(invalid="ignore", divide="ignore"):
        share, chance = np.where(enough, right / answered, np.nan), np.where(answered > 0, guess / answered, np.nan)
    pairs = zip(right, answered, strict=True)
    ends = np.array([wilson(r / n, n) if n >= LEAST else (np.nan, np.nan) for r, n in pairs])
    low, high = ends.reshape(-1, 2).T
    return GoldRecord(people, right.astype(np.int64), answered, share, low, high, chance, int((~known).sum()))


def weights(votes: Votes, standard: Standard | None = None, found: Sequence[ProfileCheck] = ()) -> Weights:
    """The weight of each annotator's votes by this standard; ``found`` are the checks that ``set_aside`` may name.

    The smallest weight of all checks. Without enough gold tasks or repeats the weight is 1.
    """
    required = standard or Standard()
    people, _ = coded(votes.person)
    weight = np.ones(len(people))
    reasons: list[list[str]] = [[] for _ in people]
    for level, record, words in (
        (required.gold, on_gold(votes), "gold tasks right"),
        (required.repeats, on_repeats(votes), "repeats with equal answers"),
    ):
        if level is None:
            continue
        for i in np.flatnonzero(record.share < level).tolist():
            ends = f"({record.low[i]:.0%} to {record.high[i]:.0%})"
            finding = f"{record.right[i]} of {record.answered[i]} {words} {ends}, "
            if record.high[i] < level:
                weight[i] = 0.0
                reasons[i].append(f"set aside: {finding}significantly below {level:.0%}")
            else:
                chance = min(float(record.chance[i]), level * 0.999)
                own = max(0.0, (float(record.share[i]) - chance) / (level - chance))
                weight[i] = min(weight[i], own)
                reasons[i].append(f"weight {own:.2f}: {finding}{level:.0%} required")
    for check in found:
        if check.name in required.set_aside:
            for name in check.people[check.named].tolist():
                i = int(np.searchsorted(people, name))
                weight[i] = 0.0
                reasons[i].append(f"set aside: {check.words[check.people.tolist().index(name)]}")
    texts = tuple("; ".join(own) for own in reasons)
    return Weights(people, weight, texts, dict(zip(people.tolist(), weight.tolist(), strict=True)))

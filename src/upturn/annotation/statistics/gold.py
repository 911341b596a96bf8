"""Accuracy on gold tasks, agreement with oneself on repeats, and the weight of votes that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from upturn.annotation.statistics.annotator_profile import Check
from upturn.annotation.statistics.votes import IMPLICIT, OTHER, coded, read
from upturn.statistics.intervals import wilson
from upturn.types import Array, Votes

LEAST = 5  # answers below which nobody is judged


@dataclass(frozen=True)
class Record:
    """How P people did on tasks with a check.

    people (P,) names;  right, asked (P,) how many;  share, low, high (P,) with Wilson's 95% interval, NaN below LEAST
    chance (P,) what a guesser would get: the mean of 1 / candidates
    skipped  tasks that were passed over, and are not counted
    """

    people: Array
    right: Array
    asked: Array
    share: Array
    low: Array
    high: Array
    chance: Array
    skipped: int


@dataclass(frozen=True)
class Standard:
    """What is asked of a person.

    gold, repeats  shares of gold tasks right and of repeated tasks answered the same; None: not required
    set_aside      checks of conduct ("guessing", "position", "speed", "drift") whose finding sets a person aside

    Whoever is below for certain, by the upper end of the interval, is set aside: weight 0. Whoever is below by what was
    seen weighs in proportion to what is beyond guessing, from 0 at chance to 1 at the standard. A person exactly at the
    standard is set aside in at most 2.5% of cases.
    """

    gold: float | None = 0.6  # of four: guessers get 0.25, so a weight of a half is at 0.425
    repeats: float | None = 0.5
    set_aside: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, level in (("gold", self.gold), ("repeats", self.repeats)):
            if level is not None and not 0 < level <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, not {level}")


@dataclass(frozen=True)
class Weights:
    """What each person's votes count, and why: nothing is deleted, and with other weights all is there again.

    people (P,) names;  weight (P,) in [0, 1];  reasons (P,) str, "" where the weight is 1 and nothing was wrong
    """

    people: Array
    weight: Array
    reasons: tuple[str, ...]
    by_name: Mapping[str, float] = field(default_factory=dict)

    def of(self, votes: Votes) -> Array:
        """(N,) the weight of each vote; of people who are not known, 1."""
        return np.array([self.by_name.get(str(name), 1.0) for name in votes.person], dtype=np.float64)


def on_gold(votes: Votes) -> Record:
    """Right is a gold task whose known best was put first, alone. "Tie" and "all bad" are wrong."""
    rows = np.flatnonzero((votes.check == "gold") & (votes.right != ""))
    own = votes.take(rows)
    answers = read(own)
    picked = np.array([str(shown[best]) if best >= 0 else "" for shown, best in zip(own.shown, answers.best,
                                                                                     strict=True)], dtype=object)
    return _record(votes, own.person, picked == own.right, answers.best != OTHER, answers.counts)


def on_repeats(votes: Votes) -> Record:
    """The same is a repeated task that the person answered as before: the same candidate first, again a tie, all bad.

    Compared with the person's first answer to that task; one whose first answer is not among the votes is not counted.
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


def _record(votes: Votes, person: Array, good: Array, known: Array, shown: Array) -> Record:
    people, _ = coded(votes.person)
    place = np.searchsorted(people, person[known].astype(str)) if known.any() else np.zeros(0, dtype=np.int64)
    asked = np.bincount(place, minlength=len(people))
    right = np.bincount(place, weights=good[known], minlength=len(people))
    guess = np.bincount(place, weights=1 / np.maximum(shown[known], 1), minlength=len(people))
    enough = asked >= LEAST
    with np.errstate(invalid="ignore", divide="ignore"):
        share, chance = np.where(enough, right / asked, np.nan), np.where(asked > 0, guess / asked, np.nan)
    ends = np.array([wilson(r / n, n) if n >= LEAST else (np.nan, np.nan) for r, n in zip(right, asked, strict=True)])
    low, high = ends.reshape(-1, 2).T
    return Record(people, right.astype(np.int64), asked, share, low, high, chance, int((~known).sum()))


def weights(votes: Votes, standard: Standard | None = None, found: Sequence[Check] = ()) -> Weights:
    """What each person's votes count by this standard; ``found`` are the checks of conduct that it may refer to.

    The least of the weights that the checks give. Without enough gold tasks or repeats nothing is held against anybody.
    """
    asked = standard or Standard()
    people, _ = coded(votes.person)
    weight = np.ones(len(people))
    reasons: list[list[str]] = [[] for _ in people]
    for level, record, words in (
        (asked.gold, on_gold(votes), "gold tasks right"),
        (asked.repeats, on_repeats(votes), "repeats with equal answers"),
    ):
        if level is None:
            continue
        for i in np.flatnonzero(record.share < level).tolist():
            said = f"{record.right[i]} of {record.asked[i]} {words} ({record.low[i]:.0%} to {record.high[i]:.0%}), "
            if record.high[i] < level:
                weight[i] = 0.0
                reasons[i].append(f"set aside: {said}below {level:.0%} for certain")
            else:
                chance = min(float(record.chance[i]), level * 0.999)
                own = max(0.0, (float(record.share[i]) - chance) / (level - chance))
                weight[i] = min(weight[i], own)
                reasons[i].append(f"counts {own:.2f}: {said}{level:.0%} asked")
    for check in found:
        if check.name in asked.set_aside:
            for name in check.people[check.named].tolist():
                i = int(np.searchsorted(people, name))
                weight[i] = 0.0
                reasons[i].append(f"set aside: {check.words[check.people.tolist().index(name)]}")
    texts = tuple("; ".join(said) for said in reasons)
    return Weights(people, weight, texts, dict(zip(people.tolist(), weight.tolist(), strict=True)))

"""Votes -> preference groups for objectives, fields for curators, corrected texts.

A vote is a group of its own: its pick is rank 1 and of the others nothing is said (the likelihood of a pick of K).
Curators read the votes on a prompt together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from upturn.annotation.annotator_weights import weights_of
from upturn.annotation.statistics.aggregation import RULES, TIED, columns
from upturn.annotation.statistics.votes import countable, numbers
from upturn.annotation.vote_mode import mode_named
from upturn.config.schema import People
from upturn.data.groups import RANK, SCORE, STRENGTH, by_reward
from upturn.protocols import Objective
from upturn.types import SYNTHETIC, Array, Samples, Votes, content_id, objects

VOTE = "vote"  # the field of samples with the outcome of votes: one of the words below, "" where none was
CHOSEN, TIE, EVEN, BAD, RIGHT, CORRECTED = "winner", "tie", "even", "bad", "right", "corrected"
AUTHOR, EDITOR = "people", "edited_by"  # the source of a corrected text, and the field that names the person


@dataclass(frozen=True)
class VotedGroups:
    """Rows of groups in sequence, with the fields rank, score and strength; ``weights`` (N,) of their people.

    ``counts``: how many votes became groups, and how many did not, by reason.
    """

    samples: Samples
    weights: Array
    counts: Counter[str]


def groups_for(objective: Objective, votes: Votes, samples: Samples, people: People) -> VotedGroups:
    """The groups that an objective can learn from."""
    return voted_groups(
        votes, samples, people, pairs=objective.candidates == 2, ties=objective.ties, labels=objective.unrelated,
    )


def voted_groups(
    votes: Votes, samples: Samples, people: People, *, pairs: bool = False, ties: bool = False, labels: bool = False
) -> VotedGroups:
    """Each vote as a group of the candidates that it was about.

    pairs   of a pick or a ranking that names one the winner and one other, which a hash draws, as (1, 2)
    ties    whether ties become groups; else they are counted and left out
    labels  whether "all bad" becomes a group, rank 2 for each; else it is counted and left out
    Ratings are groups of a prompt, ranked by the mean that people gave.
    """
    if mode_named(people.mode).feedback == "rating":
        return _rated_groups(votes, samples, people)
    kept, left = countable(votes)
    weight = weights_of(votes, people).of(votes)
    left["of annotators who were set aside"] = int((kept & (weight == 0)).sum())
    place = _places(samples)
    found: dict[str, list[Array]] = {"rows": [], RANK: [], STRENGTH: [], "weight": [], "group": []}
    for vote in np.flatnonzero(kept & (weight > 0)).tolist():
        rows = np.array([place[str(name)] for name in votes.shown[vote]], dtype=np.int64)
        ranks = np.array(votes.ranks[vote], dtype=np.int64)
        kind = _kind(str(votes.action[vote]), ranks)
        if kind == BAD:
            ranks = np.full(len(rows), 2)
        elif kind == TIE:
            ranks = np.ones(len(rows), dtype=np.int64)
        elif pairs:
            rows, ranks = _pair(rows, ranks, str(votes.ids[vote]))
        left[kind] += 1
        if (kind == BAD and not labels) or (kind == TIE and not ties):
            continue
        order = np.argsort(rows)  # by candidate, not by the place on somebody's screen
        strength = float(votes.strength[vote])
        found["rows"].append(rows[order])
        found[RANK].append(ranks[order])
        found[STRENGTH].append(np.full(len(rows), 1.0 if np.isnan(strength) else strength))
        found["weight"].append(np.full(len(rows), weight[vote]))
        found["group"].append(np.full(len(rows), len(found["group"])))
    return _assembled(samples, found, +left)


def _assembled(samples: Samples, found: dict[str, list[Array]], counts: Counter[str]) -> VotedGroups:
    empty = np.zeros(0)
    joined = {name: np.concatenate(parts) if parts else empty for name, parts in found.items()}
    chosen = samples.take(joined["rows"].astype(np.int64)).with_fields(**{
        RANK: joined[RANK].astype(np.int64), STRENGTH: joined[STRENGTH].astype(np.float64),
        SCORE: np.full(len(joined["rows"]), np.nan),
    })
    return VotedGroups(replace(chosen, group=joined["group"].astype(np.int64)), joined["weight"], counts)


def _kind(action: str, ranks: Array) -> str:
    if action == "bad":
        return BAD
    equal = len(ranks) > 0 and ranks.min() == ranks.max()
    return TIE if action == "tie" or equal else CHOSEN


def _pair(rows: Array, ranks: Array, vote: str) -> tuple[Array, Array]:
    best = int(np.flatnonzero(ranks == 1)[0])
    others = np.flatnonzero(ranks != 1)
    other = int(others[int(content_id("the other of", vote), 16) % len(others)])
    return rows[[best, other]], np.array([1, 2])


def _rated_groups(votes: Votes, samples: Samples, people: People) -> VotedGroups:
    rating, counts = ratings(votes, samples, weights_of(votes, people).of(votes))
    groups = by_reward(samples, rating)
    telling = groups.ranks.max(axis=1, initial=0) > 1
    counts["prompts without two different ratings"] = int((~telling).sum())
    rows, ranks = groups.rows[telling], groups.ranks[telling]
    ranked = (rows >= 0) & (ranks > 0)
    chosen = samples.take(rows[ranked]).with_fields(**{
        RANK: ranks[ranked], SCORE: groups.rewards[telling][ranked], STRENGTH: np.ones(int(ranked.sum())),
    })
    counts[CHOSEN] = int(telling.sum())
    return VotedGroups(chosen, np.ones(len(chosen)), +counts)


def ratings(votes: Votes, samples: Samples, weights: Array) -> tuple[Array, Counter[str]]:
    """(N,) mean rating of each sample, NaN where nobody rated it, and how many answers were left out, by reason.

    "Useless" is the lowest number. Of several attributes the mean.
    """
    place = _places(samples)
    total, mass = np.zeros(len(samples)), np.zeros(len(samples))
    counts: Counter[str] = Counter()
    given = numbers(votes)
    for vote in range(len(votes)):
        action = str(votes.action[vote])
        if action not in ("said", "bad") or votes.check[vote]:
            counts["repeated to check the annotator" if votes.check[vote] else action] += 1
        elif weights[vote] == 0:
            counts["of annotators who were set aside"] += 1
        else:
            row = place[str(votes.shown[vote][0])]
            total[row] += weights[vote] * given[vote, 0]
            mass[row] += weights[vote]
    with np.errstate(invalid="ignore"):
        return np.where(mass > 0, total / np.where(mass > 0, mass, 1), np.nan), counts


def vote_fields(votes: Votes, samples: Samples, people: People) -> dict[str, Array]:
    """The columns rank, score, strength and vote of N samples: the votes on each prompt's candidates."""
    weights = weights_of(votes, people).of(votes)
    feedback = mode_named(people.mode).feedback
    if feedback == "correction":
        return _corrected_fields(votes, samples, weights)
    if feedback == "rating":
        return _rated(votes, samples, weights)
    table = columns(RULES[people.rule](votes, weights), samples)
    word = table[VOTE]
    for group in np.unique(samples.group[word == TIED]):
        rows = (samples.group == group) & (word == TIED)
        # even: some were chosen as often as others; a tie: people said that they cannot tell
        split = (table[RANK][rows] == 0).any() or (people.rule == "majority" and np.nanmax(table[SCORE][rows]) > 0)
        word[rows] = EVEN if split else TIE
    return table


def _rated(votes: Votes, samples: Samples, weights: Array) -> dict[str, Array]:
    rating, _ = ratings(votes, samples, weights)
    groups = by_reward(samples, rating)
    there = groups.rows >= 0
    rank = np.zeros(len(samples), dtype=np.int64)
    rank[groups.rows[there]] = groups.ranks[there]
    word = objects([""] * len(samples))
    word[~np.isnan(rating)] = CHOSEN
    for group in np.unique(samples.group):
        rows = (samples.group == group) & (rank == 1)
        word[rows] = EVEN if rows.sum() > 1 else CHOSEN
    return {RANK: rank, SCORE: rating, STRENGTH: np.ones(len(samples)), VOTE: word}


def _corrected_fields(votes: Votes, samples: Samples, weights: Array) -> dict[str, Array]:
    """Of each text: right as it is, corrected, or not fixable, by weight."""
    place, counts = _places(samples), np.zeros((3, len(samples)))
    for vote in np.flatnonzero(votes.check == "").tolist():
        which = {"said": 0, "edit": 1, "bad": 2}.get(str(votes.action[vote]))
        if which is not None:
            counts[which, place[str(votes.shown[vote][0])]] += weights[vote]
    word = objects([""] * len(samples))
    word[(counts.sum(axis=0) > 0)] = TIE
    word[counts[0] > counts[2]], word[counts[2] > counts[0]], word[counts[1] > 0] = RIGHT, BAD, CORRECTED
    rank = np.where(word == RIGHT, 1, 0)
    return {RANK: rank, SCORE: np.full(len(samples), np.nan), STRENGTH: np.ones(len(samples)), VOTE: word}


def corrected(votes: Votes, samples: Samples, people: People) -> Samples | None:
    """The texts that people wrote in place of samples; None where there are none.

    Each has the sample that it was made from as ``parent`` and the person as ``edited_by``; its source is "people".
    The same text by two people for one sample is there once.
    """
    weights, place = weights_of(votes, people).of(votes), _places(samples)
    corrections: dict[str, tuple[int, str, str]] = {}
    for vote in np.flatnonzero((votes.action == "edit") & (votes.check == "") & (weights > 0)).tolist():
        row, text = place[str(votes.shown[vote][0])], str(votes.text[vote])
        corrections.setdefault(content_id(AUTHOR, samples.ids[row], text), (row, text, str(votes.person[vote])))
    if not corrections:
        return None
    rows, texts, by = (list(part) for part in zip(*corrections.values(), strict=True))
    n = len(rows)
    return Samples(
        samples.kind, objects(list(corrections)), tuple(samples.prompts[row] for row in rows), objects(texts),
        objects([SYNTHETIC] * n), objects([AUTHOR] * n), np.arange(n), np.zeros(n, dtype=np.int64),
        {"parent": objects([str(samples.ids[row]) for row in rows]), EDITOR: objects(by)},
    )


def _places(samples: Samples) -> dict[str, int]:
    """The first row of each id."""
    names: Sequence[str] = samples.ids.astype(str).tolist()
    return {name: row for row, name in reversed(list(enumerate(names)))}

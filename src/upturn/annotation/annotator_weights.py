"""The weight of each annotator's votes in a round, and each annotator's share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from upturn.annotation.statistics.gold import Standard, Weights, weights
from upturn.config.schema import People
from upturn.types import Votes

SIMULATED = "simulated"  # the team of people who are a program


def weights_of(votes: Votes, people: People) -> Weights:
    """By gold tasks and repeats against the recipe's ``least_reliability``; 1 for everybody where it has none."""
    return weights(votes, Standard(gold=people.least_reliability, repeats=people.least_reliability))


def who(votes: Votes, people: People) -> dict[str, Any]:
    """For the record: person -> votes, share of those that count, weight and reason; and how many are simulated.

    Skips are no votes.
    """
    found = weights_of(votes, people)
    given: Counter[str] = Counter(votes.person[votes.action != "skip"].tolist())
    counting = {name: given[name] * found.by_name[name] for name in given}
    total = sum(counting.values())
    reasons = dict(zip(found.people.tolist(), found.reasons, strict=True))
    listed = {
        name: {"votes": given[name], "share": counting[name] / total if total else 0.0,
               "weight": found.by_name[name], "reason": reasons[name]}
        for name in sorted(given)
    }
    simulated = int(np.sum((votes.team == SIMULATED) & (votes.action != "skip")))
    return {"people": listed, "simulated": simulated}


def warnings(votes_by: dict[str, Any], people: People) -> list[str]:
    """Warnings: simulated annotators, annotators of lower weight, one whose share is too large."""
    listed, out = votes_by["people"], []
    votes = sum(one["votes"] for one in listed.values())
    if votes_by["simulated"]:
        out.append(f"{votes_by['simulated']} of {votes} answers are of simulated annotators")
    out += [f"{name}: {one['reason']}" for name, one in listed.items() if one["weight"] < 1]
    out += [
        f"{name} gave {one['share']:.0%} of the votes that count, more than {people.most_share:.0%}: whose taste is it?"
        for name, one in listed.items() if one["share"] > people.most_share
    ]
    return out

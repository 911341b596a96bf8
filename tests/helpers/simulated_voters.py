"""Simulated annotators with known preferences and error rates: votes with a planted truth."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from upturn.annotation.statistics.contests import TIED, Contests
from upturn.types import Array, Votes, objects


@dataclass(frozen=True)
class Person:
    """With probability ``knows`` the person picks by taste, else at random.

    ``temperature`` of the choice by taste, 0 for always the best;  ``first`` share of answers that take the first
    on the screen whatever it is;  ``seconds`` median time of an answer;  ``tie``, ``bad`` shares of such answers
    """

    name: str
    knows: float = 1.0
    temperature: float = 0.0
    first: float = 0.0
    seconds: float = 6.0
    tie: float = 0.0
    bad: float = 0.0
    team: str = ""


def simulated_votes(
    people: list[Person], tasks: int, overlap: int, seed: int, k: int = 4, spread: float = 1.0
) -> tuple[Votes, Array]:
    """Picks of ``k``: each task by ``overlap`` annotators, in separate orders; and the preference (tasks, k) of all."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(tasks, k)) * spread
    rows: list[dict[str, Any]] = []
    for task in range(tasks):
        for who in rng.choice(len(people), min(overlap, len(people)), replace=False):
            rows.append(one(people[who], task, taste[task], rng, len(rows)))
    return votes_of(rows), taste


def one(person: Person, task: int, taste: Array, rng: np.random.Generator, moment: float) -> dict[str, Any]:
    k = len(taste)
    order = rng.permutation(k)
    shown = tuple(f"t{task:04d}c{c}" for c in order)
    draw = rng.random()
    action, pick = "said", 0
    if draw < person.tie:
        action = "tie"
    elif draw < person.tie + person.bad:
        action = "bad"
    elif rng.random() < person.first:
        pick = 0
    elif rng.random() >= person.knows:
        pick = int(rng.integers(k))
    else:
        noise = person.temperature * rng.gumbel(size=k) if person.temperature else 0.0
        pick = int(np.argmax(taste[order] + noise))
    ranks = tuple(int(i == pick) for i in range(k)) if action == "said" else (0,) * k
    return {
        "person": person.name, "team": person.team, "task": f"t{task:04d}", "action": action, "shown": shown,
        "ranks": ranks, "seconds": float(person.seconds * np.exp(0.4 * rng.normal())), "moment": float(moment),
    }


def votes_of(rows: list[dict[str, Any]]) -> Votes:
    """Votes of rows that name what is not as usual: picks, no scores, no strength, no text, no check."""
    def column(name: str, usual: Any, kind: Any = object) -> Array:
        values = [row.get(name, usual(row) if callable(usual) else usual) for row in rows]
        return objects(values) if kind is object else np.array(values, dtype=kind)

    ids = objects([str(row.get("id", f"v{i:06d}")) for i, row in enumerate(rows)])
    return Votes(
        ids, column("person", "ann"), column("team", ""), column("task", "t0"), column("mode", "pick"),
        column("action", "said"), column("shown", ()), column("ranks", lambda row: (0,) * len(row["shown"])),
        column("scores", lambda row: (np.nan,) * len(row["shown"])), column("strength", np.nan, np.float64),
        column("text", ""), column("seconds", 5.0, np.float64), column("moment", 0.0, np.float64),
        column("check", ""), column("right", ""),
    )


def joined(*parts: Votes) -> Votes:
    columns = {item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Votes)}
    return Votes(**columns)


def played(strength: Array, count: int, k: int, nu: float, rng: np.random.Generator) -> Contests:
    """Contests of ``k`` players drawn at random, won by the model of ``statistics.ranking``; ``nu`` 0: no ties."""
    there = np.argsort(rng.random((count, len(strength))), axis=1)[:, :k]
    own = strength[there]
    mass = np.concatenate([np.exp(own), nu * np.exp(own.mean(axis=1, keepdims=True))], axis=1)
    drawn = (rng.random((count, 1)) * mass.sum(axis=1, keepdims=True) > mass.cumsum(axis=1)).sum(axis=1)
    rows = np.arange(count)
    return Contests(
        np.array([str(i) for i in range(len(strength))]), there, np.where(drawn == k, TIED, drawn),
        np.full(count, nu > 0), rows, rows, np.zeros(count, dtype=np.int64), np.ones(count),
    )

"""Reads votes as ``types.Votes``, without those that were undone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, exists, select

from upturn.annotation.db import tables as t
from upturn.annotation.db.validation import OVERALL
from upturn.types import Array, Votes, objects

_undone = t.votes.alias("undone")


def votes(
    db: Connection, units: Sequence[str] | None = None, modes: Sequence[str] | None = None, person: str | None = None,
    until: int | None = None,
) -> Votes:
    """Explicit votes in order of arrival, of some units and modes, or of one annotator; ``until`` is the last row that
    counts.

    A rating of several attributes is a row for each, with ids ``<vote>:<attribute>`` and ``<task>:<attribute>``: each
    attribute is a task of its own.
    """
    taken_back = exists().where(_undone.c.undoes == t.votes.c.id)
    if until is not None:
        taken_back = taken_back.where(_undone.c.seq <= until)
    query = (
        select(t.votes, t.people.c.team, t.tasks.c.gold)
        .join(t.people, t.people.c.id == t.votes.c.person).join(t.tasks, t.tasks.c.id == t.votes.c.task)
        .join(t.polls, t.polls.c.id == t.tasks.c.poll)
        .where(t.votes.c.action != "undo", ~taken_back)
        .order_by(t.votes.c.seq)
    )
    if until is not None:
        query = query.where(t.votes.c.seq <= until)
    if units is not None:
        query = query.where(t.polls.c.unit.in_(units))
    if modes is not None:
        query = query.where(t.votes.c.mode.in_(modes))
    if person is not None:
        query = query.where(t.votes.c.person == person)
    return _columns(row for found in db.execute(query) for row in _rows(found))


def implicit(db: Connection) -> Votes:
    """Implicit votes of the studio, mode "studio", which ``votes`` does not contain."""
    query = (
        select(t.implicit_votes, t.people.c.team).join(t.people, t.people.c.id == t.implicit_votes.c.person)
        .order_by(t.implicit_votes.c.seq)
    )
    return _columns(
        _row(found, found.id, found.request, "studio", None, text="", strength=None, check="", right="")
        for found in db.execute(query)
    )


def _rows(found: Row[Any]) -> list[tuple[Any, ...]]:
    right = found.gold if found.check == "gold" else ""
    more = {"text": found.text, "strength": found.strength, "check": found.check, "right": right}
    if set(found.scores) <= {OVERALL}:
        scores = found.scores.get(OVERALL)
        return [_row(found, found.id, found.task, found.mode, scores, **more)]
    return [
        _row(found, f"{found.id}:{name}", f"{found.task}:{name}", found.mode, scores, **more)
        for name, scores in sorted(found.scores.items())
    ]


def _row(
    found: Row[Any], name: str, task: str, mode: str, scores: Sequence[float] | None, *, text: str,
    strength: float | None, check: str, right: str,
) -> tuple[Any, ...]:
    shown = tuple(found.shown)
    return (
        name, found.person, found.team, task, mode, found.action, shown, tuple(found.ranks),
        tuple(scores) if scores is not None else (float("nan"),) * len(shown),
        float("nan") if strength is None else strength, text, found.seconds, found.moment, check, right,
    )


def _columns(rows: Iterable[tuple[Any, ...]]) -> Votes:
    found = list(rows)
    return Votes(**{
        item.name: _column(item.name, [row[place] for row in found]) for place, item in enumerate(fields(Votes))
    })


def _column(name: str, values: list[Any]) -> Array:
    return np.array(values, dtype=np.float64) if name in ("strength", "seconds", "moment") else objects(values)

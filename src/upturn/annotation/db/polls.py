"""Polls and their tasks. Opening a poll again adds only the tasks that are missing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from upturn.annotation.db import tables as t
from upturn.annotation.db.engine import analyse
from upturn.annotation.db.validation import OVERALL, Poll, Refused, Task
from upturn.annotation.vote_mode import mode_named
from upturn.errors import UserError
from upturn.types import content_id

UNTIL = "until"  # key in a poll's settings: the last row that counts, once the quota is met
_MOST_ROWS = 500  # rows in one INSERT


def polls(db: Connection, active: bool | None = None) -> list[Poll]:
    """All polls, the oldest first."""
    query = select(t.polls).order_by(t.polls.c.made, t.polls.c.id)
    if active is not None:
        query = query.where(t.polls.c.active == active)
    return [poll_of(row) for row in db.execute(query)]


def poll_of(row: Row[Any]) -> Poll:
    return Poll(
        row.id, row.unit, row.mode, row.overlap, row.quota, row.active, row.given,
        tuple(row.settings.get("attributes") or (OVERALL,)), float(row.settings.get("golds", 0.0)),
        float(row.settings.get("repeats", 0.0)),
    )


def open_poll(
    db: Connection, unit: str, mode: str, tasks: Sequence[Task], overlap: int, quota: int | None,
    attributes: Sequence[str], golds: float, repeats: float,
) -> Poll:
    """The poll of this unit and mode, with at least these tasks; existing tasks keep their answers.

    Refused for numbers out of range, a task whose candidates do not fit the mode, and a poll that is closed.
    """
    _check(mode, tasks, overlap, quota, golds, repeats)
    name = content_id("poll", unit, mode)
    values = {
        "overlap": overlap, "quota": quota, "active": True,
        "settings": {"attributes": list(attributes), "golds": golds, "repeats": repeats},
    }
    there = db.execute(select(t.polls.c.settings).where(t.polls.c.id == name)).first()
    if there is not None and UNTIL in there.settings:
        raise Refused("conflict", f"'{mode}' on {unit} is answered, and a round has used the answers")
    if there is None:
        db.execute(insert(t.polls).values(id=name, unit=unit, mode=mode, load=0, given=0, made=time.time(), **values))
    else:
        db.execute(update(t.polls).where(t.polls.c.id == name).values(**values))
    known = set(db.execute(select(t.tasks.c.id).where(t.tasks.c.poll == name)).scalars())
    rows = {}
    for task in tasks:
        own = content_id(name, *sorted(task.candidates))
        if own not in known:
            rows[own] = {
                "id": own, "poll": name, "prompt": dict(task.prompt), "candidates": list(task.candidates),
                "places": list(task.places), "gold": task.gold, "place": int(own[:7], 16), "covered": 0, "load": 0,
            }
    fresh = list(rows.values())
    for start in range(0, len(fresh), _MOST_ROWS):
        db.execute(insert(t.tasks), fresh[start : start + _MOST_ROWS])
    if fresh:
        analyse(db, t.tasks.name)
    row = db.execute(select(t.polls).where(t.polls.c.id == name)).one()
    return poll_of(row)


def change_poll(db: Connection, poll: str, **columns: Any) -> Poll:
    """Changes the overlap or quota, or opens and closes it."""
    allowed = {"overlap", "quota", "active"}
    if not columns.keys() <= allowed:
        raise ValueError(f"of a poll only {sorted(allowed)} change")
    if columns.get("overlap", 1) < 1 or (columns.get("quota") or 0) < 0:
        raise Refused("wrong", "an overlap is 1 or more, a quota 0 or more")
    row = db.execute(select(t.polls).where(t.polls.c.id == poll)).first()
    if row is None:
        raise Refused("unknown", "there is no such poll")
    if columns:
        db.execute(update(t.polls).where(t.polls.c.id == poll).values(**columns))
    return poll_of(db.execute(select(t.polls).where(t.polls.c.id == poll)).one())


def _check(
    mode: str, tasks: Sequence[Task], overlap: int, quota: int | None, golds: float, repeats: float
) -> None:
    try:
        found = mode_named(mode)
    except UserError as error:
        raise Refused("wrong", f"{error.what} ({error.fix})") from error
    if overlap < 1 or (quota is not None and quota < 0):
        raise Refused("wrong", f"an overlap is 1 or more and a quota 0 or more, not {overlap} and {quota}")
    if not (golds >= 0 and repeats >= 0 and golds + repeats < 1):
        raise Refused("wrong", f"the shares of gold tasks and repeats add up to less than 1, not {golds} and {repeats}")
    wanted = found.candidates
    for task in tasks:
        count = len(task.candidates)
        if len(set(task.candidates)) != count or len(task.places) != count:
            raise Refused("wrong", "a task shows different candidates, each with its place")
        if count < (wanted or 2) or (wanted is not None and count != wanted):
            raise Refused("wrong", f"'{mode}' shows {wanted or 'at least 2'} candidates, not {count}")
        if task.gold and (task.gold not in task.candidates or not found.compares):
            raise Refused("wrong", "what is known to be best must be among the candidates of a choice")

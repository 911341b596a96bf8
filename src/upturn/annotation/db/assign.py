"""Assigns tasks to annotators: the least-covered task that an annotator has not seen.

An assigned task holds a slot until it is answered or expires. Slots are taken inside the single writing transaction, so
two requests never get the same last slot. Least covered first is breadth first: every task gets answers.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, exists, func, insert, select, update

from upturn.annotation.db import tables as t
from upturn.annotation.db.validation import OVERALL, Assigned, Assignment, Check, Refused, Why
from upturn.types import content_id

_OPEN, _SEEN = "open", ("open", "answered", "skipped")
_GAP = 5  # answers between a task and its repeat: with fewer, annotators remember their answer
_SHOWN = (
    t.showings.c.id, t.showings.c.person, t.showings.c.task, t.showings.c.shown, t.showings.c.moment,
    t.showings.c.expires, t.tasks.c.prompt, t.tasks.c.candidates, t.tasks.c.places, t.polls.c.mode,
    t.polls.c.settings, t.polls.c.id.label("poll"),
)
_SHOWINGS = (
    select(*_SHOWN).join(t.tasks, t.tasks.c.id == t.showings.c.task)
    .join(t.polls, t.polls.c.id == t.tasks.c.poll)
)
_OWN = (
    _SHOWINGS.where(t.showings.c.person == bindparam("person"), t.showings.c.state == _OPEN)
    .order_by(t.showings.c.again.desc(), t.showings.c.moment, t.showings.c.id)
)
_ONE = _SHOWINGS.where(t.showings.c.id == bindparam("showing"), t.showings.c.person == bindparam("person"))
_SEEN_BY = exists().where(
    t.showings.c.person == bindparam("person"), t.showings.c.task == t.tasks.c.id, t.showings.c.state.in_(_SEEN)
)
_MISSING = and_(t.tasks.c.poll == bindparam("poll"), t.tasks.c.gold == "", ~_SEEN_BY)
_NEXT = (
    select(t.tasks).where(_MISSING, t.tasks.c.load < bindparam("overlap"))
    .order_by(t.tasks.c.load, t.tasks.c.place, t.tasks.c.id).limit(1)
)
_LATER = select(t.tasks.c.id).where(_MISSING, t.tasks.c.covered < bindparam("overlap")).limit(1)
_GOLD = (
    select(t.tasks).where(t.tasks.c.poll == bindparam("poll"), t.tasks.c.gold != "", ~_SEEN_BY)
    .order_by(t.tasks.c.load, t.tasks.c.place, t.tasks.c.id).limit(1)
)
_BEFORE = (
    select(t.showings.c.task).join(t.tasks, t.tasks.c.id == t.showings.c.task)
    .where(t.tasks.c.poll == bindparam("poll"), t.showings.c.person == bindparam("person"),
           t.showings.c.state.in_(_SEEN))
    .group_by(t.showings.c.task)
    .having(and_(func.count() == 1, func.max(t.showings.c.state) == "answered", func.max(t.showings.c.check) == ""))
    .order_by(func.max(t.showings.c.moment))
)
_TASK = select(t.tasks).where(t.tasks.c.id == bindparam("task"))
_ACTIVE = select(t.polls).where(t.polls.c.active).order_by(t.polls.c.made, t.polls.c.id)
_PERSON = select(t.people.c.paused, t.people.c.quota, t.people.c.given).where(t.people.c.id == bindparam("person"))
_EXPIRED = (
    select(t.showings.c.id, t.showings.c.task, t.showings.c.check, t.tasks.c.poll, t.tasks.c.gold)
    .join(t.tasks, t.tasks.c.id == t.showings.c.task)
    .where(t.showings.c.state == _OPEN, t.showings.c.expires < bindparam("now"))
)
_SET_STATE = update(t.showings).where(t.showings.c.id == bindparam("showing")).values(state=bindparam("to"))
_LOAD_TASK = (
    update(t.tasks).where(t.tasks.c.id == bindparam("task"))
    .values(load=t.tasks.c.load + bindparam("by"), covered=t.tasks.c.covered + bindparam("more"))
)
_LOAD_POLL = (
    update(t.polls).where(t.polls.c.id == bindparam("poll"))
    .values(load=t.polls.c.load + bindparam("by"), given=t.polls.c.given + bindparam("more"))
)
_INSERT = insert(t.showings)


def assign(
    db: Connection, person: str, now: float, *, patience: float, most_open: int, mode: str | None = None,
    beside: Sequence[str] = (),
) -> Assigned:
    """The annotator's oldest open assignment not in ``beside``, else a new one that expires in ``patience`` seconds.

    Refused for an annotator who is unknown, or paused.
    """
    who = db.execute(_PERSON, {"person": person}).first()
    if who is None:
        raise Refused("unknown", "there is no such person")
    if who.paused:
        raise Refused("paused", "voting is paused for you; whoever asked you to vote can say why")
    own = [row for row in db.execute(_OWN, {"person": person}) if mode is None or row.mode == mode]
    for row in own:
        if row.id not in beside:
            return Assigned(assignment_of(row))
    if len(own) >= most_open:
        return Assigned(None, "held")
    turn = who.given + len(own)
    if who.quota is not None and turn >= who.quota:
        return Assigned(None, "quota")
    return _new(db, person, now, patience, turn, mode)


def _new(db: Connection, person: str, now: float, patience: float, turn: int, mode: str | None) -> Assigned:
    why: Why = "done"
    for poll in db.execute(_ACTIVE).all():
        if mode is not None and poll.mode != mode:
            continue
        if poll.quota is not None and poll.load >= poll.quota:
            why = "later" if poll.given < poll.quota else why
            continue
        task, check = _chosen(db, poll, person, turn)
        if task is not None:
            shown = shuffled(task.candidates, person, task.id, check)
            name = secrets.token_hex(12)
            db.execute(_INSERT, {
                "id": name, "person": person, "task": task.id, "shown": shown, "check": check, "state": _OPEN,
                "again": False, "moment": now, "expires": now + patience,
            })
            if check != "repeat":
                load(db, task.id, poll.id, by=1, gold=task.gold)
            places = dict(zip(task.candidates, task.places, strict=True))
            return Assigned(Assignment(
                name, person, task.id, poll.mode, task.prompt, tuple(shown), tuple(places[one] for one in shown),
                tuple(poll.settings.get("attributes") or (OVERALL,)), now,
            ))
        if db.execute(_LATER, {"poll": poll.id, "person": person, "overlap": poll.overlap}).first() is not None:
            why = "later"
    return Assigned(None, why)


def _chosen(db: Connection, poll: Row[Any], person: str, turn: int) -> tuple[Row[Any] | None, Check]:
    """A task of the poll; at the configured rates a gold task, or one that this annotator has answered before."""
    settings = poll.settings
    dice = random.Random(content_id("check", poll.id, person, turn)).random()
    golds, repeats = float(settings.get("golds", 0.0)), float(settings.get("repeats", 0.0))
    values = {"poll": poll.id, "person": person}
    task = db.execute(_NEXT, values | {"overlap": poll.overlap}).first()
    if task is None:
        return None, ""  # no answers are missing: gold tasks and repeats are not assigned alone
    if dice < golds and (known := db.execute(_GOLD, values).first()) is not None:
        return known, "gold"
    if golds <= dice < golds + repeats:
        before = db.execute(_BEFORE, values).scalars().all()
        if len(before) > _GAP:
            return db.execute(_TASK, {"task": before[0]}).first(), "repeat"
    return task, ""


def expire(db: Connection, now: float) -> None:
    """Releases the slots of expired assignments; a late answer still counts."""
    for row in db.execute(_EXPIRED, {"now": now}).all():
        db.execute(_SET_STATE, {"showing": row.id, "to": "expired"})
        if row.check != "repeat":
            load(db, row.task, row.poll, by=-1, gold=row.gold)


def load(db: Connection, task: str, poll: str, *, by: int = 0, more: int = 0, gold: str = "") -> None:
    """Updates the counts of slots (``by``) and answers (``more``) of a task, and of its poll if it is not gold."""
    db.execute(_LOAD_TASK, {"task": task, "by": by, "more": more})
    if not gold:
        db.execute(_LOAD_POLL, {"poll": poll, "by": by, "more": more})


def again(db: Connection, showing: str, person: str, now: float, patience: float) -> Assignment:
    """Assigns the same task again, in the same order and before all others; the caller counts its slot."""
    old = db.execute(select(t.showings).where(t.showings.c.id == showing)).one()
    name = secrets.token_hex(12)
    db.execute(_SET_STATE, {"showing": showing, "to": "undone"})
    db.execute(_INSERT, {
        "id": name, "person": person, "task": old.task, "shown": old.shown, "check": old.check, "state": _OPEN,
        "again": True, "moment": now, "expires": now + patience,
    })
    made = opened(db, name, person)
    assert made is not None
    return made


def opened(db: Connection, showing: str, person: str) -> Assignment | None:
    """An assignment of this annotator in any state; None where it is another's."""
    row = db.execute(_ONE, {"showing": showing, "person": person}).first()
    return assignment_of(row) if row is not None else None


def shuffled(candidates: Sequence[str], person: str, task: str, check: str) -> list[str]:
    """The candidates' order for this annotator; a repeat has a different one."""
    order = list(candidates)
    random.Random(content_id("order", person, task, check)).shuffle(order)
    return order


def assignment_of(row: Row[*tuple[Any, ...]]) -> Assignment:
    places = dict(zip(row.candidates, row.places, strict=True))
    return Assignment(
        row.id, row.person, row.task, row.mode, row.prompt, tuple(row.shown), tuple(places[name] for name in row.shown),
        tuple(row.settings.get("attributes") or (OVERALL,)), row.moment,
    )

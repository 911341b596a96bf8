"""Records votes: each is one row, written once even if it is sent twice; an undo is another row."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, insert, select, update

from upturn.annotation.db import tables as t
from upturn.annotation.db.assign import again, load
from upturn.annotation.db.validation import OVERALL, Answer, Assignment, Recorded, Refused
from upturn.annotation.vote_mode import mode_named, picked

LONGEST_CLIENT = 120
_VOTE = select(t.votes.c.id, t.votes.c.person, t.votes.c.showing, t.votes.c.task, t.votes.c.action, t.votes.c.undoes)
_BY_ID = _VOTE.where(t.votes.c.id == bindparam("id"))
_ANSWERED = (
    select(t.showings, t.tasks.c.poll, t.tasks.c.gold, t.polls.c.mode, t.polls.c.settings, t.people.c.paused)
    .join(t.tasks, t.tasks.c.id == t.showings.c.task).join(t.polls, t.polls.c.id == t.tasks.c.poll)
    .join(t.people, t.people.c.id == t.showings.c.person)
    .where(t.showings.c.id == bindparam("showing"), t.showings.c.person == bindparam("person"))
)
_INSERT = insert(t.votes)
_SET_STATE = update(t.showings).where(t.showings.c.id == bindparam("showing")).values(state=bindparam("to"))
_COUNT = (
    update(t.people).where(t.people.c.id == bindparam("who")).values(given=t.people.c.given + bindparam("by"))
)
_later = t.votes.alias("later")
_STANDS = ~exists().where(_later.c.undoes == t.votes.c.id)
_LAST = (
    select(t.votes, t.tasks.c.poll, t.tasks.c.gold).join(t.tasks, t.tasks.c.id == t.votes.c.task)
    .where(t.votes.c.person == bindparam("person"), t.votes.c.action != "undo", _STANDS)
    .order_by(t.votes.c.seq.desc()).limit(1)
)


def record(db: Connection, answer: Answer, now: float) -> Recorded:
    """Writes a vote; a vote that is sent again is not written again.

    Refused where the assignment is another annotator's, was answered by another vote, or the answer does not fit it.
    """
    known = db.execute(_BY_ID, {"id": answer.id}).first()
    if known is not None:
        if (known.person, known.showing, known.action) != (answer.person, answer.showing, answer.action):
            raise Refused("conflict", "this id stands for another vote")
        return Recorded(known.id, known.task, known.action, again=True)
    showing = db.execute(_ANSWERED, {"showing": answer.showing, "person": answer.person}).first()
    if showing is None:
        raise Refused("unknown", "there is no such showing")
    if showing.paused:
        raise Refused("paused", "voting is paused for you; whoever asked you to vote can say why")
    if showing.state not in ("open", "expired"):
        raise Refused("answered", "this was answered already")
    answer = replace(answer, ranks=picked(answer.pick, len(showing.shown)), pick=None) if answer.pick else answer
    attributes = tuple(showing.settings.get("attributes") or (OVERALL,))
    mode_named(showing.mode).check(answer, len(showing.shown), attributes)
    passed = max(0.0, now - showing.moment)
    own = passed if answer.seconds is None or not math.isfinite(answer.seconds) else max(0.0, answer.seconds)
    db.execute(_INSERT, {
        "id": answer.id, "person": answer.person, "task": showing.task, "showing": showing.id, "mode": showing.mode,
        "action": answer.action, "shown": showing.shown, "ranks": list(answer.ranks) or [0] * len(showing.shown),
        "scores": {name: list(values) for name, values in answer.scores.items()}, "strength": answer.strength,
        "text": answer.text, "seconds": min(own, passed), "client": answer.client[:LONGEST_CLIENT], "moment": now,
        "check": showing.check, "undoes": None,
    })
    counted = answer.action != "skip"
    db.execute(_SET_STATE, {"showing": showing.id, "to": "answered" if counted else "skipped"})
    if counted:
        db.execute(_COUNT, {"who": answer.person, "by": 1})
    _slots(db, showing, held=showing.state == "open", holds=counted)
    return Recorded(answer.id, showing.task, answer.action)


def _slots(db: Connection, showing: Row[Any], *, held: bool, holds: bool) -> None:
    """Counts the answer's slot: that of its assignment, a new one where it had expired, none for a repeat."""
    if showing.check != "repeat" and (held or holds):
        load(db, showing.task, showing.poll, by=int(holds) - int(held), more=int(holds), gold=showing.gold)


def undo(
    db: Connection, name: str, person: str, now: float, patience: float
) -> tuple[Recorded | None, Assignment | None]:
    """Undoes the annotator's last vote and assigns its task again; (None, None) where there is none.

    ``name`` is the new row's id: an undo that is sent again has no further effect.
    """
    known = db.execute(_BY_ID, {"id": name}).first()
    if known is not None:
        if (known.person, known.action) != (person, "undo"):
            raise Refused("conflict", "this id stands for another vote")
        return Recorded(known.id, known.task, "undo", again=True), None
    last = db.execute(_LAST, {"person": person}).first()
    if last is None:
        return None, None
    db.execute(_INSERT, {
        "id": name, "person": person, "task": last.task, "showing": last.showing, "mode": last.mode, "action": "undo",
        "shown": last.shown, "ranks": [0] * len(last.shown), "scores": {}, "strength": None, "text": "",
        "seconds": 0.0, "client": last.client, "moment": now, "check": last.check, "undoes": last.id,
    })
    counted = last.action != "skip"
    if counted:
        db.execute(_COUNT, {"who": person, "by": -1})
    showing = again(db, last.showing, person, now, patience)
    if last.check != "repeat":
        load(db, last.task, last.poll, by=0 if counted else 1, more=-int(counted), gold=last.gold)
    return Recorded(name, last.task, "undo"), showing

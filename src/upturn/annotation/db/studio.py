"""The studio's queue, the samples that the model generates for a request, and downloads: implicit votes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from upturn.annotation.db import tables as t
from upturn.annotation.db.validation import Recorded, Refused

MOST_WAITING = 3  # requests of one person that wait at a time
LONGEST_PROMPT = 2_000  # characters


@dataclass(frozen=True)
class StudioSample:
    """One generated sample; ``body`` is UTF-8, a PNG file or JSON by ``kind``."""

    position: int
    sample: str
    kind: str
    body: bytes


@dataclass(frozen=True)
class Request:
    """``place`` in the queue: 0 is in progress, 1 is next, None is finished. ``taken``: (position, action) pairs."""

    id: str
    person: str
    prompt: str
    state: str
    message: str
    moment: float
    place: int | None
    taken: tuple[tuple[int, str], ...] = ()


def ask(db: Connection, person: str, prompt: str, now: float) -> str:
    """Puts a prompt into the queue; Refused where too many of this annotator's requests are waiting."""
    if len(prompt) > LONGEST_PROMPT:
        raise Refused("wrong", f"a prompt has at most {LONGEST_PROMPT} characters")
    waiting = db.execute(
        select(func.count()).where(t.requests.c.person == person, t.requests.c.state.in_(("queued", "making")))
    ).scalar_one()
    if waiting >= MOST_WAITING:
        raise Refused("conflict", f"{waiting} of yours are still in the queue")
    name = secrets.token_hex(8)
    db.execute(insert(t.requests).values(
        id=name, person=person, prompt=prompt, state="queued", message="", moment=now
    ))
    return name


def request(db: Connection, name: str, person: str) -> Request:
    """A request of this annotator; Refused where it is another's."""
    row = db.execute(select(t.requests).where(t.requests.c.id == name, t.requests.c.person == person)).first()
    if row is None:
        raise Refused("unknown", "there is no such request")
    taken = db.execute(
        select(t.implicit_votes.c.position, t.implicit_votes.c.action).where(t.implicit_votes.c.request == name)
    ).all()
    return Request(
        row.id, row.person, row.prompt, row.state, row.message, row.moment, _place(db, row.id, row.state, row.moment),
        tuple((position, action) for position, action in taken),
    )


def _place(db: Connection, name: str, state: str, moment: float) -> int | None:
    if state not in ("queued", "making"):
        return None
    if state == "making":
        return 0
    earlier = or_(t.requests.c.moment < moment, and_(t.requests.c.moment == moment, t.requests.c.id < name))
    before = select(func.count()).where(t.requests.c.state == "queued", earlier)
    return db.execute(before).scalar_one() + 1


def requests_of(db: Connection, person: str, most: int = 20) -> list[Request]:
    """An annotator's requests, the newest first."""
    asked = (
        select(t.requests.c.id).where(t.requests.c.person == person)
        .order_by(t.requests.c.moment.desc(), t.requests.c.id.desc()).limit(most)
    )
    return [request(db, name, person) for name in db.execute(asked).scalars().all()]


def samples(db: Connection, name: str, person: str) -> list[StudioSample]:
    """The samples of a request of this annotator, by position."""
    request(db, name, person)
    rows = db.execute(select(t.made).where(t.made.c.request == name).order_by(t.made.c.position))
    return [StudioSample(row.position, row.sample, row.kind, bytes(row.body)) for row in rows]


def studio_sample(db: Connection, name: str, position: int, person: str) -> StudioSample:
    row = db.execute(
        select(t.made).join(t.requests, t.requests.c.id == t.made.c.request)
        .where(t.made.c.request == name, t.made.c.position == position, t.requests.c.person == person)
    ).first()
    if row is None:
        raise Refused("unknown", "there is no such sample")
    return StudioSample(row.position, row.sample, row.kind, bytes(row.body))


def requeue(db: Connection) -> int:
    """Puts requests that a stopped server was generating back into the queue; returns how many wait."""
    db.execute(update(t.requests).where(t.requests.c.state == "making").values(state="queued"))
    return db.execute(select(func.count()).where(t.requests.c.state == "queued")).scalar_one()


def next_request(db: Connection) -> tuple[str, str] | None:
    """Takes the oldest waiting request: its id and prompt."""
    row = db.execute(
        select(t.requests.c.id, t.requests.c.prompt).where(t.requests.c.state == "queued")
        .order_by(t.requests.c.moment, t.requests.c.id).limit(1)
    ).first()
    if row is None:
        return None
    db.execute(update(t.requests).where(t.requests.c.id == row.id).values(state="making"))
    return row.id, row.prompt


def finish(db: Connection, name: str, found: Sequence[StudioSample], message: str = "") -> None:
    """StudioSample, or failed with a message."""
    state = "done" if found else "failed"
    db.execute(update(t.requests).where(t.requests.c.id == name).values(state=state, message=message))
    db.execute(delete(t.made).where(t.made.c.request == name))
    for one in found:
        db.execute(insert(t.made).values(
            request=name, position=one.position, sample=one.sample, kind=one.kind, body=one.body
        ))


def take(
    db: Connection, name: str, request_id: str, position: int, action: str, person: str, client: str, now: float
) -> Recorded:
    """Records an implicit vote: a sample was downloaded or enlarged. It counts once."""
    if action not in ("download", "upscale"):
        raise Refused("wrong", f"nothing is taken by '{action}'")
    asked = request(db, request_id, person)
    found = samples(db, request_id, person)
    if not 0 <= position < len(found):
        raise Refused("unknown", "there is no such sample")
    v = t.implicit_votes
    known = db.execute(
        select(v.c.id).where(v.c.request == request_id, v.c.position == position, v.c.action == action)
    ).scalar()
    if known is not None:
        return Recorded(known, request_id, action, again=True)
    ranks = [int(place == position) for place in range(len(found))]
    db.execute(insert(v).values(
        id=name, person=person, request=request_id, position=position, action=action,
        shown=[one.sample for one in found], ranks=ranks, seconds=max(0.0, now - asked.moment), client=client[:120],
        moment=now,
    ))
    return Recorded(name, request_id, action)

"""Adds, changes and pauses annotators, who are never deleted, and issues their tokens."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from upturn.annotation.db import tables as t
from upturn.annotation.db.tokens import hashed, new_token
from upturn.annotation.db.validation import Person, Refused, Role

LONGEST_NAME = 80  # characters of a name or a team
_FIELDS = (t.people.c.id, t.people.c.name, t.people.c.role, t.people.c.team, t.people.c.quota, t.people.c.paused,
           t.people.c.epoch, t.people.c.given)


def people(db: Connection) -> list[Person]:
    """All annotators, in the order in which they were added."""
    return [_person(row) for row in db.execute(select(*_FIELDS).order_by(t.people.c.made, t.people.c.id))]


def by_token(db: Connection, key: bytes, token: str) -> Person | None:
    """The annotator with this token, found by its hash: the time does not depend on how much of a token matches."""
    row = db.execute(select(*_FIELDS).where(t.people.c.token == hashed(key, token))).first()
    return _person(row) if row is not None else None


def add(
    db: Connection, key: bytes, name: str, role: Role = "voter", team: str = "", quota: int | None = None
) -> tuple[Person, str]:
    """Adds an annotator; returns them with their token, which is not stored. Refused for an invalid or taken name."""
    name, team = name.strip(), team.strip()
    if not 0 < len(name) <= LONGEST_NAME or len(team) > LONGEST_NAME or not (name + team).isprintable():
        raise Refused("wrong", f"a name has 1 to {LONGEST_NAME} characters that can be seen")
    if quota is not None and quota < 0:
        raise Refused("wrong", f"a quota is 0 or more, not {quota}")
    if db.execute(select(t.people.c.id).where(t.people.c.name == name)).first() is not None:
        raise Refused("conflict", f"there is a '{name}' already")
    token, person = new_token(), secrets.token_hex(6)
    db.execute(insert(t.people).values(
        id=person, name=name, role=role, team=team, quota=quota, paused=False, token=hashed(key, token), epoch=0,
        given=0, made=time.time(),
    ))
    return Person(person, name, role, team, quota, False, 0, 0), token


def add_missing(db: Connection, key: bytes, people: Sequence[Mapping[str, Any]]) -> list[tuple[Person, str]]:
    """Adds those of a list ({name, role, team, quota}) that do not exist, each with a token; others are unchanged."""
    known = set(db.execute(select(t.people.c.name)).scalars())
    return [add(db, key, **one) for one in people if str(one["name"]).strip() not in known]


def change(db: Connection, person: str, **columns: Any) -> Person:
    """Changes the role, team, quota or paused state."""
    allowed = {"role", "team", "quota", "paused"}
    if not columns.keys() <= allowed:
        raise ValueError(f"of a person only {sorted(allowed)} change")
    quota = columns.get("quota")
    if quota is not None and quota < 0:
        raise Refused("wrong", f"a quota is 0 or more, not {quota}")
    if columns:
        db.execute(update(t.people).where(t.people.c.id == person).values(**columns))
    return found(db, person)


def renew_token(db: Connection, key: bytes, person: str) -> str:
    """Issues a new token; the old one and all of its sessions become invalid."""
    found(db, person)
    token = new_token()
    db.execute(
        update(t.people).where(t.people.c.id == person).values(token=hashed(key, token), epoch=t.people.c.epoch + 1)
    )
    return token


def found(db: Connection, person: str) -> Person:
    row = db.execute(select(*_FIELDS).where(t.people.c.id == person)).first()
    if row is None:
        raise Refused("unknown", "there is no such person")
    return _person(row)


def _person(row: Row[*tuple[Any, ...]]) -> Person:
    return Person(*tuple(row))

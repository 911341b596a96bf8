"""Closes a poll once all its answers are there; later votes do not count."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, update

from upturn.annotation.db import tables as t
from upturn.annotation.db.poll_progress import progress
from upturn.annotation.db.polls import UNTIL
from upturn.types import content_id


def settle(db: Connection, unit: str, mode: str) -> int | None:
    """The last row of votes that counts for a poll, once all its answers are there; None before.

    From then on the poll is closed and the result is fixed: later votes do not change it.
    """
    name = content_id("poll", unit, mode)
    row = db.execute(select(t.polls).where(t.polls.c.id == name)).first()
    if row is None:
        return None
    if UNTIL in row.settings:
        return int(row.settings[UNTIL])
    own = [one for one in progress(db, [unit]).polls if one.poll.id == name]
    if own[0].missing:
        return None
    last = int(db.execute(select(func.max(t.votes.c.seq))).scalar() or 0)
    settings = {**row.settings, UNTIL: last}
    db.execute(update(t.polls).where(t.polls.c.id == name).values(settings=settings, active=False))
    return last

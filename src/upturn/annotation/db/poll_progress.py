"""The progress of polls: how many answers there are, and how many are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, func, select

from upturn.annotation.db import tables as t
from upturn.annotation.db.annotators import people
from upturn.annotation.db.polls import polls
from upturn.annotation.db.validation import Person, Poll


@dataclass(frozen=True)
class PollProgress:
    """``wanted`` answers, ``given`` so far (of different annotators; skips, repeats and gold tasks left out).

    ``stuck`` of the missing ones have no annotator left: all have seen the task, are paused, or met their quota.
    """

    poll: Poll
    tasks: int
    wanted: int
    given: int
    stuck: int

    @property
    def missing(self) -> int:
        return max(0, self.wanted - self.given)


@dataclass(frozen=True)
class Progress:
    polls: tuple[PollProgress, ...]
    people: tuple[Person, ...]

    @property
    def wanted(self) -> int:
        return sum(one.wanted for one in self.polls)

    @property
    def given(self) -> int:
        return sum(min(one.given, one.wanted) for one in self.polls)

    @property
    def missing(self) -> int:
        return sum(one.missing for one in self.polls)

    @property
    def met(self) -> bool:
        """Whether all required answers are there; False where none are required."""
        return bool(self.polls) and self.missing == 0

    def message(self) -> str:
        """The missing answers as text, for ``upturn status``."""
        if not self.polls:
            return "there are no polls yet"
        if self.met:
            return f"all {self.wanted} answers are there"
        parts = [f"{one.missing} of {one.wanted} in '{one.poll.mode}' on {one.poll.unit}"
                 for one in self.polls if one.missing]
        stuck = sum(one.stuck for one in self.polls)
        more = f"; {stuck} of them need more annotators" if stuck else ""
        return f"answers are missing: {', '.join(parts)}{more}"


def progress(db: Connection, units: Sequence[str] | None = None) -> Progress:
    """Of all active polls, or of those of some units, active or not."""
    everybody = people(db)
    asked = polls(db, active=True) if units is None else [poll for poll in polls(db) if poll.unit in units]
    return Progress(tuple(_of_poll(db, poll, everybody) for poll in asked), tuple(everybody))


def _of_poll(db: Connection, poll: Poll, everybody: Sequence[Person]) -> PollProgress:
    own = and_(t.tasks.c.poll == poll.id, t.tasks.c.gold == "")
    enough_of = case((t.tasks.c.covered > poll.overlap, poll.overlap), else_=t.tasks.c.covered)
    tasks, enough = db.execute(
        select(func.count(), func.sum(enough_of)).where(own)
    ).one()
    wanted = tasks * poll.overlap if poll.quota is None else min(poll.quota, tasks * poll.overlap)
    given = int(enough or 0)
    able = [p.id for p in everybody if not p.paused and (p.quota is None or p.given < p.quota)]
    stuck = 0
    if given < wanted:
        seen = (
            select(t.showings.c.task, func.count(func.distinct(t.showings.c.person)).label("by"))
            .where(t.showings.c.person.in_(able), t.showings.c.state.in_(("answered", "skipped")))
            .group_by(t.showings.c.task).subquery()
        )
        need = poll.overlap - t.tasks.c.covered
        can = len(able) - func.coalesce(seen.c.by, 0)
        lack = db.execute(
            select(func.sum(need - can)).select_from(t.tasks).outerjoin(seen, seen.c.task == t.tasks.c.id)
            .where(own, need > can)
        ).scalar()
        stuck = min(int(lack or 0), wanted - given)
    return PollProgress(poll, int(tasks), int(wanted), given, stuck)

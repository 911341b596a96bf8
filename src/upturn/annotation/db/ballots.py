"""The database of votes: all writes go through one queue; reads do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Connection

from upturn.annotation.db import annotators, closing, engine, polls, record, studio, vote_columns
from upturn.annotation.db import assign as assigning
from upturn.annotation.db.poll_progress import Progress, progress
from upturn.annotation.db.tokens import key_in
from upturn.annotation.db.upgrade import upgrade
from upturn.annotation.db.validation import OVERALL, Answer, Assigned, Assignment, Person, Poll, Recorded, Role, Task
from upturn.annotation.db.writer import Writer
from upturn.store.run import Run
from upturn.types import Votes

DATABASE = "votes.db"
PATIENCE = 600.0  # seconds that a task is reserved: enough to correct a text; a late answer still counts
MOST_OPEN = 3  # open tasks of an annotator: one on the screen, one prefetched, one left open in another tab
_SWEEP = 1.0  # seconds between two checks for expired assignments
_ANSWER_WITHIN = 60.0  # seconds; longer than a write waits for another process
T = TypeVar("T")


class BallotBox:
    """The votes of one run. Methods wait for their commit; ``submit`` returns a future instead.

    Raises UserError where the database is newer than this upturn, or does not answer.
    """

    def __init__(
        self, url: str, schema: str, key: bytes, *, clock: Callable[[], float] = time.time, patience: float = PATIENCE,
        most_open: int = MOST_OPEN,
    ) -> None:
        self.key, self.clock, self.patience, self.most_open = key, clock, patience, most_open
        self._swept = float("-inf")  # when expired slots were last released
        self._writes = engine.engine_for(url, schema, writes=True)
        self._reads = engine.engine_for(url, schema, writes=False)
        with engine.clear_errors():
            upgrade(self._writes, schema)
        self._writer = Writer(self._writes, schema)

    def submit(self, act: Callable[[Connection], T]) -> Future[T]:
        """Runs ``act`` in the writing queue; the future is done after the commit."""
        return self._writer.submit(act)

    def _now(self, act: Callable[[Connection], T]) -> T:
        with engine.clear_errors():
            return self.submit(act).result(_ANSWER_WITHIN)

    def read(self, act: Callable[[Connection], T]) -> T:
        """Runs ``act`` on a reading connection, concurrently with writes."""
        with engine.clear_errors(), self._reads.connect() as db:
            return act(db)

    # annotators

    def add_person(
        self, name: str, role: Role = "voter", team: str = "", quota: int | None = None
    ) -> tuple[Person, str]:
        """The new annotator and their token, which is returned only here."""
        return self._now(partial(annotators.add, key=self.key, name=name, role=role, team=team, quota=quota))

    def add_people(self, people: Sequence[dict[str, Any]]) -> list[tuple[Person, str]]:
        """Adds those of a list that do not exist; returns them with their tokens."""
        return self._now(partial(annotators.add_missing, key=self.key, people=people))

    def change_person(self, person: str, **what: Any) -> Person:
        """Changes role, team, quota or paused."""
        return self._now(partial(annotators.change, person=person, **what))

    def new_token(self, person: str) -> str:
        return self._now(partial(annotators.renew_token, key=self.key, person=person))

    def people(self) -> list[Person]:
        return self.read(annotators.people)

    def by_token(self, token: str) -> Person | None:
        return self.read(partial(annotators.by_token, key=self.key, token=token))

    # polls

    def open_poll(
        self, unit: str, mode: str, tasks: Sequence[Task], *, overlap: int = 1, quota: int | None = None,
        attributes: Sequence[str] = (OVERALL,), golds: float = 0.0, repeats: float = 0.0,
    ) -> Poll:
        """Opens a poll with these tasks; opened again, it adds missing tasks and takes the new numbers."""
        return self._now(partial(
            polls.open_poll, unit=unit, mode=mode, tasks=tasks, overlap=overlap, quota=quota, attributes=attributes,
            golds=golds, repeats=repeats,
        ))

    def change_poll(self, poll: str, **what: Any) -> Poll:
        """Changes overlap, quota or active."""
        return self._now(partial(polls.change_poll, poll=poll, **what))

    def settle(self, unit: str, mode: str) -> int | None:
        """Closes the poll once its quota is met; returns the last row that counts, for ``votes``; None before."""
        return self._now(partial(closing.settle, unit=unit, mode=mode))

    def polls(self, active: bool | None = None) -> list[Poll]:
        return self.read(partial(polls.polls, active=active))

    # voting

    def assign(self, person: str, mode: str | None = None, beside: Sequence[str] = ()) -> Assigned:
        return self._now(self.assigning(person, mode, beside))

    def assigning(self, person: str, mode: str | None = None, beside: Sequence[str] = ()) -> Callable[
        [Connection], Assigned
    ]:
        """``assign`` for ``submit``."""
        def act(db: Connection) -> Assigned:
            now = self.clock()
            if not self._swept <= now < self._swept + _SWEEP:
                assigning.expire(db, now)
                self._swept = now
            return assigning.assign(
                db, person, now, patience=self.patience, most_open=self.most_open, mode=mode, beside=beside
            )

        return act

    def record(self, answer: Answer) -> Recorded:
        return self._now(self.recording(answer))

    def recording(self, answer: Answer) -> Callable[[Connection], Recorded]:
        """``record`` for ``submit``."""
        return lambda db: record.record(db, answer, self.clock())

    def undo(self, name: str, person: str) -> tuple[Recorded | None, Assignment | None]:
        return self._now(self.undoing(name, person))

    def undoing(self, name: str, person: str) -> Callable[[Connection], tuple[Recorded | None, Assignment | None]]:
        """``undo`` for ``submit``."""
        return lambda db: record.undo(db, name, person, self.clock(), self.patience)

    def assignment(self, name: str, person: str) -> Assignment | None:
        """An assignment of this annotator; None for another's."""
        return self.read(partial(assigning.opened, showing=name, person=person))

    # reading

    def progress(self, units: Sequence[str] | None = None) -> Progress:
        return self.read(partial(progress, units=units))

    def votes(
        self, units: Sequence[str] | None = None, modes: Sequence[str] | None = None, person: str | None = None,
        until: int | None = None,
    ) -> Votes:
        """Explicit votes that were not undone (``until`` a row), in order of arrival."""
        return self.read(partial(vote_columns.votes, units=units, modes=modes, person=person, until=until))

    def implicit(self) -> Votes:
        """Implicit votes: downloads and enlargements in the studio."""
        return self.read(vote_columns.implicit)

    # the studio's queue is in annotation.db.studio, for ``submit`` and ``read``

    def requeue(self) -> int:
        return self._now(studio.requeue)

    def close(self) -> None:
        """Finishes waiting jobs and closes the database."""
        self._writer.close()
        self._writes.dispose()
        self._reads.dispose()

    def __enter__(self) -> BallotBox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def open_box(run: Run, url: str | None = None, **settings: Any) -> BallotBox:
    """The votes of a run: ``votes.db`` in its folder, or a shared database, with one schema per run.

    An old database is upgraded. Raises UserError for a newer one, and for one that cannot be reached.
    """
    return BallotBox(
        url or f"sqlite:///{run.folder.resolve() / DATABASE}", f"upturn_{run.id}", key_in(run.folder), **settings
    )

"""The state of the server: votes, content, sessions, and the studio if there is one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from upturn.annotation.content import Content, ContentStore
from upturn.annotation.db.ballots import BallotBox
from upturn.annotation.db.engine import clear_errors
from upturn.annotation.db.poll_progress import Progress
from upturn.annotation.db.validation import Assigned, Assignment, Person
from upturn.annotation.statistics.agreement import Agreement, agreement
from upturn.errors import UserError
from upturn.web.continue_run import RunContinuation
from upturn.web.markup import Style
from upturn.web.sessions import RateLimits, Session, Signing
from upturn.web.studio_worker import Studio

T = TypeVar("T")
_FRESH = 2.0  # seconds that what was read of people and progress may be old; whoever is paused is refused at once
_QUICK = 0.005  # seconds that counting may take to be done after every answer
_SLOW = 15.0  # seconds that agreement may be old: it reads every vote


@dataclass(frozen=True)
class _Kept:
    value: Any
    found: float
    took: float  # seconds


@dataclass
class ServerState:
    """The shared state of the pages; everything that waits for the database is awaited, never blocked on."""

    name: str  # of the run
    box: BallotBox
    contents: ContentStore
    studio: Studio | None = None
    style: Style = "plain"
    secure: bool = False  # whether cookies go over https alone
    hosts: frozenset[str] | None = None  # the names that the server answers to; None: any
    limits: RateLimits = field(default_factory=RateLimits)
    continuation: RunContinuation | None = None  # what goes on with the run once the quota is met
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _answered: float = float("-inf")  # when somebody last answered by the page

    def __post_init__(self) -> None:
        self.signing = Signing(self.box.key)

    async def write(self, act: Callable[[Connection], T]) -> T:
        """Through the one queue; returns after the commit."""
        with clear_errors():
            return await asyncio.wrap_future(self.box.submit(act))

    async def read(self, act: Callable[[Connection], T]) -> T:
        """Beside what is being written."""
        return await asyncio.to_thread(self.box.read, act)

    async def _recent(self, name: str, fresh: float, find: Callable[[], T]) -> T:
        """What ``find`` gives, at most ``fresh`` seconds old."""
        known = self._kept.get(name)
        if known is None or time.monotonic() - known.found > fresh:
            began = time.monotonic()
            known = _Kept(await asyncio.to_thread(find), began, time.monotonic() - began)
            self._kept[name] = known
        found: T = known.value
        return found

    @property
    def going(self) -> str:
        """What the run does with the votes, in words; "" where nothing is done with them now."""
        return self.continuation.words if self.continuation is not None else ""

    def answered(self) -> None:
        """Somebody answered by the page: what was counted before is old."""
        self._answered = time.monotonic()

    def forget(self) -> None:
        """People or polls were changed here: what was read of them is old."""
        self._kept.clear()

    async def people(self) -> dict[str, Person]:
        return await self._recent("people", _FRESH, lambda: {person.id: person for person in self.box.people()})

    async def progress(self, exact: bool = False) -> Progress:
        """Counted again after an answer where that is quick, or with ``exact``: one's own answer counts."""
        known = self._kept.get("progress")
        old = known is not None and known.found <= self._answered and (exact or known.took < _QUICK)
        return await self._recent("progress", -1.0 if old else _FRESH, self.box.progress)

    async def agreement(self) -> tuple[Agreement, ...]:
        """By mode, as the report has it."""
        return await self._recent("agreement", _SLOW, lambda: agreement(self.box.votes()))

    async def session(self, cookie: str | None) -> Session | None:
        """Who sends this cookie; None where nobody is signed in by it (any more)."""
        signed = self.signing.read(cookie) if cookie else None
        if signed is None:
            return None
        name, epoch, csrf = signed
        person = (await self.people()).get(name)
        return Session(person, csrf) if person is not None and person.epoch == epoch else None

    async def assign(self, person: str, mode: str | None = None, beside: tuple[str, ...] = ()) -> Assigned:
        return await self.write(self.box.assigning(person, mode, beside))

    async def content(self, showing: Assignment, position: int) -> Content:
        """What stands at a position. UserError where the run has lost it."""
        place, sample = showing.places[position], showing.shown[position]
        if not self.contents.holds(place):
            await asyncio.to_thread(self.contents.place, place)
        try:
            return self.contents.content(place, sample)  # one read of a file that is in memory, mostly
        except KeyError:
            raise UserError("what was to be shown here is gone from the run") from None

    async def assignment(self, name: str, person: str) -> Assignment | None:
        return await asyncio.to_thread(partial(self.box.assignment, name, person))

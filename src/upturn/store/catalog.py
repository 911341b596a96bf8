"""The catalog: runs, rounds and stages in a database (SQLite, or any URL), for fast queries, also across runs.

It is written after the files and can be rebuilt from them, so that losing it loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from sqlalchemy import JSON, ForeignKey, create_engine, delete, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from upturn.errors import UserError
from upturn.store.commit import Record
from upturn.store.units import unit_round

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine.interfaces import DBAPIConnection

T = TypeVar("T")
_WAIT = 30.0  # seconds to wait for another process that writes the same SQLite file


class RunStateFile(Protocol):
    """What a run last wrote about itself."""

    @property
    def state(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def updated(self) -> str: ...


class RunFiles(Protocol):
    """What the catalog reads of a run; ``store.run.Run`` has it."""

    folder: Path

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> dict[str, Any]: ...
    @property
    def recipe_text(self) -> str: ...
    @property
    def fingerprint(self) -> dict[str, Any]: ...
    @property
    def state(self) -> RunStateFile: ...
    def records(self) -> list[Record]: ...


class Base(DeclarativeBase):
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON}


class RunRow(Base):
    """One run; with the last ``state`` and ``message``."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    folder: Mapped[str]
    created: Mapped[str]
    state: Mapped[str]
    message: Mapped[str]
    updated: Mapped[str]
    recipe: Mapped[str]
    fingerprint: Mapped[dict[str, Any]]


class RoundRow(Base):
    """One round: the sum of its steps' seconds, and the gate's decision (None before it)."""

    __tablename__ = "rounds"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    started: Mapped[str]
    seconds: Mapped[float]
    decision: Mapped[str | None]
    reason: Mapped[str | None]


class StageRow(Base):
    """One finished step of one unit: its record."""

    __tablename__ = "stages"
    run: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    unit: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(primary_key=True)
    round: Mapped[int]  # -1 for data and helper models
    started: Mapped[str] = mapped_column(index=True)
    seconds: Mapped[float]
    counts: Mapped[dict[str, Any]]
    info: Mapped[dict[str, Any]]
    files: Mapped[dict[str, Any]]

    def record(self) -> Record:
        return Record(self.unit, self.step, self.started, self.seconds, self.counts, self.info, self.files)


class Catalog:
    """A database with the tables above, which are created where they are missing. UserError for an invalid URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            sqlite = make_url(url).get_backend_name() == "sqlite"
            self._engine = create_engine(url, connect_args={"timeout": _WAIT} if sqlite else {})
        except (ArgumentError, ImportError) as error:
            raise UserError(
                f"the catalog cannot be opened: {error}", where="catalog",
                fix="Write a database URL such as postgresql+psycopg://user@host/name, with its driver installed.",
            ) from error
        if sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite)
        self._ready = False

    def _session(self) -> Session:
        if not self._ready:
            Base.metadata.create_all(self._engine)
            self._ready = True
        return Session(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def count(self, run: str) -> int | None:
        """How many finished steps it knows of a run; None where it does not know the run."""
        with self._session() as session:
            if session.get(RunRow, run) is None:
                return None
            return session.scalar(select(func.count()).select_from(StageRow).where(StageRow.run == run))

    def put_run(self, run: RunFiles) -> None:
        """Write or renew the row of a run."""
        with self._session() as session, session.begin():
            session.merge(_run_row(run))

    def put_record(self, run: str, record: Record) -> None:
        """Write a finished step, and renew its round."""
        with self._session() as session, session.begin():
            session.merge(_stage_row(run, record))
            session.flush()
            number = unit_round(record.unit)
            if number >= 0:
                rows = session.scalars(select(StageRow).where(StageRow.run == run, StageRow.round == number))
                session.merge(_round_row(run, number, [row.record() for row in rows]))

    def rebuild(self, run: RunFiles) -> None:
        """Rebuild all rows of a run from its files."""
        records = run.records()
        by_round: dict[int, list[Record]] = {}
        for record in records:
            by_round.setdefault(unit_round(record.unit), []).append(record)
        with self._session() as session, session.begin():
            for table in (StageRow, RoundRow):
                session.execute(delete(table).where(table.run == run.id))
            session.merge(_run_row(run))
            session.flush()
            session.add_all(_stage_row(run.id, record) for record in records)
            session.add_all(_round_row(run.id, number, rows) for number, rows in by_round.items() if number >= 0)

    def runs(self) -> list[RunRow]:
        """Every run, the oldest first."""
        return self._all(lambda session: list(session.scalars(select(RunRow).order_by(RunRow.created))))

    def rounds(self, run: str) -> list[RoundRow]:
        """The rounds of a run, by number."""
        query = select(RoundRow).where(RoundRow.run == run).order_by(RoundRow.number)
        return self._all(lambda session: list(session.scalars(query)))

    def records(self, run: str) -> list[Record]:
        """The records of a run, in the order in which the steps began; equal to ``Run.records``."""
        query = select(StageRow).where(StageRow.run == run).order_by(StageRow.started, StageRow.unit, StageRow.step)
        return self._all(lambda session: [row.record() for row in session.scalars(query)])

    def _all(self, ask: Callable[[Session], list[T]]) -> list[T]:
        with self._session() as session:
            session.expire_on_commit = False
            found = ask(session)
            session.expunge_all()
            return found


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    """Readers do not wait for the writer (WAL); a power cut loses at most rows that can be rebuilt."""
    cursor = connection.cursor()
    for line in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={int(_WAIT * 1000)}"):
        cursor.execute(f"PRAGMA {line}")
    cursor.close()


def _run_row(run: RunFiles) -> RunRow:
    state = run.state
    return RunRow(
        id=run.id, name=run.name, folder=str(run.folder.resolve()), created=run.identity["created"], state=state.state,
        message=state.message, updated=state.updated, recipe=run.recipe_text, fingerprint=run.fingerprint,
    )


def _stage_row(run: str, record: Record) -> StageRow:
    return StageRow(
        run=run, unit=record.unit, step=record.step, round=unit_round(record.unit), started=record.started,
        seconds=record.seconds, counts=dict(record.counts), info=dict(record.info), files=dict(record.files),
    )


def _round_row(run: str, number: int, records: list[Record]) -> RoundRow:
    gate = next((record.info for record in records if record.step == "gate"), {})
    # summed in the order of the steps, so that a rebuilt row is equal to the last bit
    ordered = sorted(records, key=lambda record: (record.started, record.unit, record.step))
    return RoundRow(
        run=run, number=number, started=ordered[0].started, seconds=sum(record.seconds for record in ordered),
        decision=gate.get("decision"), reason=gate.get("reason"),
    )

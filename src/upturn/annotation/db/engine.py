"""Engines over the database of votes: SQLite in the run's folder, or Postgres by URL with one schema a run."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from upturn.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from upturn.types import content_id

WAIT = 30.0  # seconds to wait for another process that writes the same SQLite file
_AGAIN = 0.01  # seconds between two tries where SQLite itself does not wait
_SCHEMA = re.compile(r"[a-z][a-z0-9_]{0,62}")


def is_sqlite(url: str) -> bool:
    return make_url(url).get_backend_name() == "sqlite"


def engine_for(url: str, schema: str, *, writes: bool) -> Engine:
    """An engine; on SQLite every transaction of one that ``writes`` takes the write lock when it begins.

    A commit is on the disk before it returns (SQLite: WAL with synchronous=FULL; Postgres: its default).
    Raises UserError for an invalid URL, or where its driver is missing.
    """
    if not _SCHEMA.fullmatch(schema):
        raise ValueError(f"'{schema}' is no schema")
    try:
        if is_sqlite(url):
            engine = create_engine(url, connect_args={"timeout": WAIT, "check_same_thread": False})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_immediate if writes else _begin)
            return engine
        engine = create_engine(url, pool_pre_ping=True)
    except (ArgumentError, ImportError) as error:
        raise UserError(
            f"the votes cannot be opened: {error}", where="database",
            fix="Write a database URL such as postgresql+psycopg://user@host/name; pip install upturn[postgres].",
        ) from error
    if engine.dialect.name != "postgresql":
        raise UserError(
            f"votes are not kept in {engine.dialect.name}", where="database", fix="Give SQLite or Postgres."
        )

    def into_schema(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'SET search_path TO "{schema}"')
        connection.commit()

    event.listen(engine, "connect", into_schema)
    return engine


def only_writer(connection: Connection, schema: str) -> None:
    """Waits until no other process writes the votes of this run; the lock is held to the end of the transaction."""
    if connection.dialect.name == "postgresql":
        number = int(content_id("votes", schema), 16) >> 1  # 63 bits, as Postgres numbers its locks
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": number})


def make_schema(connection: Connection, schema: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))


def analyse(connection: Connection, table: str) -> None:
    """Updates Postgres's statistics of a table that was just filled: its own first update is a minute later, and until
    then it sorts all tasks of a poll to find the next one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ANALYZE {table}"))


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns errors of an unreachable, full or locked database into one message without the URL and its password."""
    try:
        yield
    except SQLAlchemyError as error:
        inner = error.orig if isinstance(error, DBAPIError) else error
        reason = (str(inner).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the database of votes does not answer: {reason}", where="database") from error


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # transactions begin explicitly, tables are created inside them, too
    cursor = connection.cursor()
    for line in (f"busy_timeout={int(WAIT * 1000)}", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {line}")
    _into_wal(cursor)
    cursor.close()


def _into_wal(cursor: DBAPICursor) -> None:
    """Switches a file's journal to WAL, with retries: where several processes do so at once SQLite fails immediately
    for all but one, whatever the timeout, as two holders of a shared lock would deadlock."""
    until = time.monotonic() + WAIT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_AGAIN)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")

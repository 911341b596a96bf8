"""The tables of votes, as the newest migration leaves them (a test compares the two).

``votes`` and ``implicit_votes`` only ever grow: triggers refuse to change or delete a row. The counters ``load``,
``covered`` and ``given`` are sums over them, kept in the same transaction, so that a task is found without counting.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

NAMES = {"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
         "fk": "fk_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"}
metadata = MetaData(naming_convention=NAMES)
# the name of a vote mode; SQLite does not enforce lengths, so only Postgres needs the longer column
MODE = String(8).with_variant(String(200), "postgresql")

people = Table(
    "people", metadata,
    Column("id", String(16), primary_key=True),  # a pseudonym: votes hold only this id
    Column("name", Text, nullable=False, unique=True),
    Column("role", String(8), nullable=False),  # voter | admin
    Column("team", Text, nullable=False),
    Column("quota", Integer),  # required answers of this annotator; NULL: no limit
    Column("paused", Boolean, nullable=False),
    Column("token", String(64), nullable=False, unique=True),  # a keyed hash
    Column("epoch", Integer, nullable=False),  # grows with each new token and ends older sessions
    Column("given", Integer, nullable=False),  # answers without undone ones and skips
    Column("made", Double, nullable=False),  # this and all moments: seconds since 1970, UTC
)

polls = Table(
    "polls", metadata,
    Column("id", String(16), primary_key=True),
    Column("unit", Text, nullable=False),  # unit of the samples: rounds/001, or several joined by " "
    Column("mode", MODE, nullable=False),
    Column("overlap", Integer, nullable=False),  # annotators per task
    Column("quota", Integer),  # answers in total; NULL: overlap times the tasks
    Column("settings", JSON, nullable=False),  # attributes, and the shares of gold tasks and repeats
    Column("active", Boolean, nullable=False),
    Column("load", Integer, nullable=False),  # answered + assigned and not yet answered
    Column("given", Integer, nullable=False),
    Column("made", Double, nullable=False),
)

tasks = Table(
    "tasks", metadata,
    Column("id", String(16), primary_key=True),
    Column("poll", String(16), ForeignKey("polls.id"), nullable=False),
    Column("prompt", JSON, nullable=False),  # {"text": …} or {"turns": [{role, content}, …]}, and a label
    Column("candidates", JSON, nullable=False),  # sample ids
    Column("places", JSON, nullable=False),  # parallel: the table within the run that holds each
    Column("gold", String(64), nullable=False),  # the sample known to be best, or ""
    Column("place", Integer, nullable=False),  # order among equally covered tasks
    Column("covered", Integer, nullable=False),
    Column("load", Integer, nullable=False),
    Index(None, "poll", "load", "place"),
)

showings = Table(
    "showings", metadata,
    Column("id", String(32), primary_key=True),
    Column("person", String(16), ForeignKey("people.id"), nullable=False),
    Column("task", String(16), ForeignKey("tasks.id"), nullable=False),
    Column("shown", JSON, nullable=False),  # sample ids by position on the screen
    Column("check", String(8), nullable=False),  # "" | gold | repeat
    Column("state", String(8), nullable=False),  # open | answered | skipped | expired | undone
    Column("again", Boolean, nullable=False),  # assigned again after an undo, before all others
    Column("moment", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Index(None, "person", "task"),
    Index(None, "state", "expires"),
    Index(None, "person", "state"),
)


def _vote_columns(*more: Column[object]) -> list[Column[object]]:
    return [
        Column("seq", Integer, primary_key=True, autoincrement=True),
        Column("id", String(64), nullable=False, unique=True),  # created by the client, so that it can send it twice
        Column("person", String(16), ForeignKey("people.id"), nullable=False),
        *more,
        Column("action", String(8), nullable=False),
        Column("shown", JSON, nullable=False),
        Column("ranks", JSON, nullable=False),  # parallel to shown: 1 is best, equal is a tie, 0 unranked
        Column("seconds", Double, nullable=False),  # from assignment to answer
        Column("client", Text, nullable=False),
        Column("moment", Double, nullable=False),
    ]


votes = Table(
    "votes", metadata,
    *_vote_columns(
        Column("task", String(16), ForeignKey("tasks.id"), nullable=False),
        Column("showing", String(32), ForeignKey("showings.id"), nullable=False),
        Column("mode", MODE, nullable=False),
    ),
    Column("scores", JSON, nullable=False),  # attribute -> a number for each candidate
    Column("strength", Double),
    Column("text", Text, nullable=False),
    Column("check", String(8), nullable=False),
    Column("undoes", String(64), unique=True),  # the vote that this row takes back
    Index(None, "person", "seq"),
    Index(None, "task"),
)

requests = Table(
    "requests", metadata,
    Column("id", String(32), primary_key=True),
    Column("person", String(16), ForeignKey("people.id"), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("state", String(8), nullable=False),  # queued | making | done | failed
    Column("message", Text, nullable=False),
    Column("moment", Double, nullable=False),
    Index(None, "state", "moment"),
    Index(None, "person", "moment"),
)

made = Table(
    "made", metadata,
    Column("request", String(32), ForeignKey("requests.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("sample", String(64), nullable=False),
    Column("kind", String(8), nullable=False),  # text | image | points
    Column("body", LargeBinary, nullable=False),  # UTF-8, a PNG file, JSON
)

implicit_votes = Table(
    "implicit_votes", metadata,
    *_vote_columns(
        Column("request", String(32), ForeignKey("requests.id"), nullable=False),
        Column("position", Integer, nullable=False),  # which candidate was used
    ),
    UniqueConstraint("request", "position", "action"),  # counts once
)

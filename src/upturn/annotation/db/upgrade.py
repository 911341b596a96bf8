"""Upgrades an old database when it is opened; refuses one that a newer upturn wrote."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from upturn.annotation.db.engine import make_schema, only_writer
from upturn.errors import UserError

HEAD = "0003"  # the newest revision in migrations/versions


def version(connection: Connection) -> str | None:
    """The revision of a database; None where it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return str(found) if found is not None else None


def upgrade(engine: Engine, schema: str, to: str = HEAD) -> str | None:
    """Upgrades the database to a revision, in one transaction; returns the previous one.

    Raises UserError where it was written by a newer upturn.
    """
    with engine.begin() as connection:
        only_writer(connection, schema)
        make_schema(connection, schema)
        before = version(connection)
        if before == to:
            return before
        if before is not None and before > HEAD:
            raise UserError(
                f"these votes were written by a newer upturn (revision {before}, this one knows {HEAD})",
                where="database", fix="Install the newer upturn; nothing was changed.",
            )
        _migrate(connection, to)
    return before


def _migrate(connection: Connection, to: str) -> None:
    try:
        from alembic import command
        from alembic.config import Config
    except ImportError as error:
        raise UserError(
            "a database of votes is made with alembic, which is not installed", fix="pip install upturn[people]"
        ) from error
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)

"""Longer names of vote modes, on Postgres: SQLite does not enforce the length of a column."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for table in ("polls", "votes"):
            op.alter_column(table, "mode", existing_type=sa.String(8), type_=sa.String(200), existing_nullable=False)

"""The studio: what people asked the model for, what it made, and what they took of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from upturn.annotation.db.migrations.immutable import only_grows

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("person", sa.String(16), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("moment", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_requests_person"),
    )
    op.create_index("ix_requests_state_moment", "requests", ["state", "moment"])
    op.create_index("ix_requests_person_moment", "requests", ["person", "moment"])
    op.create_table(
        "made",
        sa.Column("request", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sample", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("request", "position", name="pk_made"),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name="fk_made_request"),
    )
    op.create_table(
        "implicit_votes",
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("person", sa.String(16), nullable=False),
        sa.Column("request", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("ranks", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("moment", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_implicit_votes"),
        sa.UniqueConstraint("id", name="uq_implicit_votes_id"),
        sa.UniqueConstraint("request", "position", "action", name="uq_implicit_votes_request_position_action"),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_implicit_votes_person"),
        sa.ForeignKeyConstraint(["request"], ["requests.id"], name="fk_implicit_votes_request"),
    )
    only_grows("implicit_votes")

"""People, polls, tasks, showings, and votes that nobody can change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from upturn.annotation.db.migrations.immutable import only_grows

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "people",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("quota", sa.Integer()),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("token", sa.String(64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("given", sa.Integer(), nullable=False),
        sa.Column("made", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
        sa.UniqueConstraint("name", name="uq_people_name"),
        sa.UniqueConstraint("token", name="uq_people_token"),
    )
    op.create_table(
        "polls",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("quota", sa.Integer()),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("load", sa.Integer(), nullable=False),
        sa.Column("given", sa.Integer(), nullable=False),
        sa.Column("made", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_polls"),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("poll", sa.String(16), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("gold", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("covered", sa.Integer(), nullable=False),
        sa.Column("load", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
        sa.ForeignKeyConstraint(["poll"], ["polls.id"], name="fk_tasks_poll"),
    )
    op.create_index("ix_tasks_poll_load_place", "tasks", ["poll", "load", "place"])
    op.create_table(
        "showings",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("person", sa.String(16), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("check", sa.String(8), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("again", sa.Boolean(), nullable=False),
        sa.Column("moment", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_showings"),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_showings_person"),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"], name="fk_showings_task"),
    )
    op.create_index("ix_showings_person_task", "showings", ["person", "task"])
    op.create_index("ix_showings_state_expires", "showings", ["state", "expires"])
    op.create_index("ix_showings_person_state", "showings", ["person", "state"])
    op.create_table(
        "votes",
        sa.Column("seq", sa.Integer(), nullable=False, autoincrement=True),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("person", sa.String(16), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("showing", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("shown", sa.JSON(), nullable=False),
        sa.Column("ranks", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("moment", sa.Double(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("strength", sa.Double()),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("check", sa.String(8), nullable=False),
        sa.Column("undoes", sa.String(64)),
        sa.PrimaryKeyConstraint("seq", name="pk_votes"),
        sa.UniqueConstraint("id", name="uq_votes_id"),
        sa.UniqueConstraint("undoes", name="uq_votes_undoes"),
        sa.ForeignKeyConstraint(["person"], ["people.id"], name="fk_votes_person"),
        sa.ForeignKeyConstraint(["task"], ["tasks.id"], name="fk_votes_task"),
        sa.ForeignKeyConstraint(["showing"], ["showings.id"], name="fk_votes_showing"),
    )
    op.create_index("ix_votes_person_seq", "votes", ["person", "seq"])
    op.create_index("ix_votes_task", "votes", ["task"])
    only_grows("votes")

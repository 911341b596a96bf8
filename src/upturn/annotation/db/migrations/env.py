"""What alembic runs: the migrations, on the connection that ``upgrade`` hands over, inside its transaction."""

from __future__ import annotations

from alembic import context

from upturn.annotation.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

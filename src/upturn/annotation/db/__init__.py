"""The database of annotators, polls, assigned tasks and votes, in SQLite or Postgres.

``ballots.open_box(run)`` opens it; its ``votes()`` returns ``types.Votes``. ``used_votes`` reads the votes that
rounds have used, which are stored in their folders. This file imports nothing, so that reading such a table does
not import SQLAlchemy.
"""

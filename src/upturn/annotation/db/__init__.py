"""Votes of people: who they are, what they are asked, who sees what next, what they said; SQLite or Postgres.

``box.open_box(run)`` gives the ballot box; its ``votes()`` is what other packages read (``types.Votes``).
``frozen.votes_of(run)`` are the votes that rounds have used: kept in their folders. This file imports nothing, so that
whoever reads a table of votes need not wait for SQLAlchemy.
"""

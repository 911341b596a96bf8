"""Votes of people: who they are, what they are asked, who sees what next, what they said; SQLite or Postgres.

``open_box(run)`` gives the ballot box; ``box.votes()`` is what the rest of the house reads (``types.Votes``).
``votes_of(run)`` are the votes that rounds have used: frozen in their folders.
"""

from upturn.store.votes.box import BallotBox, has_votes, open_box
from upturn.store.votes.frozen import votes_of
from upturn.store.votes.progress import Progress
from upturn.store.votes.words import Answer, Assigned, Person, Poll, Recorded, Refused, Showing, Task

__all__ = ["Answer", "Assigned", "BallotBox", "Person", "Poll", "Progress", "Recorded", "Refused", "Showing", "Task",
           "has_votes", "open_box", "votes_of"]

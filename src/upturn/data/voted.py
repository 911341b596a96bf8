"""Preferences collected elsewhere, as votes of one annotator."""

from __future__ import annotations

import numpy as np

from upturn.data.groups import from_fields
from upturn.types import Samples, Votes, content_id, objects


def votes_of_groups(samples: Samples, person: str) -> tuple[Votes, tuple[str, ...]]:
    """A vote for each group of ``samples``, such as the source 'preferences' reads; notes count groups without order.

    Of two a "compare", of several whose best alone is named a "pick", else a "rank"; equal ranks of all are a tie.
    ``person`` is the annotator of all of them: a file does not name several, so the report warns of their share. The
    order of display is unknown: that of the file is taken. Groups of one candidate are left out with a note.
    UserError where no group is ordered.
    """
    groups, notes = from_fields(samples)
    rows, alone = [], 0
    for place in range(len(groups)):
        own = groups.rows[place][groups.rows[place] >= 0]
        ranks = tuple(groups.ranks[place][: len(own)].tolist())
        if len(own) < 2:
            alone += 1
            continue
        named = [rank for rank in ranks if rank]
        tied = len(named) == len(ranks) and len(set(named)) == 1
        mode = "compare" if len(own) == 2 else "pick" if len(named) == 1 else "rank"
        candidates = tuple(str(name) for name in samples.ids[own])
        scores = tuple(groups.rewards[place][: len(own)].tolist())
        task = content_id(*sorted(candidates))
        rows.append((content_id(person, place, task), task, mode, "tie" if tied else "said", candidates,
                     (0,) * len(ranks) if tied else ranks, scores, float(groups.strength[place])))
    if alone:
        notes = (*notes, f"{alone:,} of {len(groups):,} groups have one candidate: left out of votes")
    n = len(rows)
    names = ("ids", "task", "mode", "action", "shown", "ranks", "scores")
    columns = {name: objects([row[i] for row in rows]) for i, name in enumerate(names)}
    blank = {name: objects([""] * n) for name in ("team", "text", "check", "right")}
    return Votes(
        **columns, **blank, person=objects([person] * n), strength=np.array([row[7] for row in rows], dtype=np.float64),
        seconds=np.full(n, np.nan), moment=np.arange(n, dtype=np.float64),
    ), notes

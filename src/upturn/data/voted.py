"""Preferences that were collected elsewhere, as votes: they count like ours."""

from __future__ import annotations

import numpy as np

from upturn.data.groups import from_fields
from upturn.types import Samples, Votes, content_id, objects


def votes_of_groups(samples: Samples, person: str) -> tuple[Votes, tuple[str, ...]]:
    """A vote for each group of ``samples``, such as the source 'preferences' reads; notes count the silent ones.

    Of two a "compare", of several whose best alone is named a "pick", else a "rank"; equal ranks of all are a tie.
    ``person`` stands for whoever they are: where the file does not say, all of it is one person's, so that the report
    warns of how much they decide. No order on a screen is known: the place is the file's. Groups of one candidate say
    nothing of another and are left out with a note. UserError where no group says anything.
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
        shown = tuple(str(name) for name in samples.ids[own])
        scores = tuple(groups.rewards[place][: len(own)].tolist())
        task = content_id(*sorted(shown))
        rows.append((content_id(person, place, task), task, mode, "tie" if tied else "said", shown,
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

"""The votes that a round used, as a table in its directory; later votes do not change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upturn.store.columns import read_table, with_notes, write_table
from upturn.types import Array, Votes, objects

if TYPE_CHECKING:
    from upturn.store.run import Run

VOTES = "votes.parquet"
_LISTS = {"shown": "string", "ranks": "int64", "scores": "float64"}
_NUMBERS = ("strength", "seconds", "moment")
_NAMES = {"ids": "vote_id"}  # a column "id" would mark the rows as samples


def write_votes(path: Path, votes: Votes) -> None:
    """One row a vote, with the columns of ``types.Votes``; ids in "vote_id"."""
    import pyarrow as pa

    def column(name: str) -> Any:
        values = getattr(votes, name)
        if name in _LISTS:
            return pa.array([list(row) for row in values], pa.list_(pa.type_for_alias(_LISTS[name])))
        return pa.array(values, pa.float64()) if name in _NUMBERS else pa.array(values.tolist(), pa.string())

    table = pa.table({_NAMES.get(item.name, item.name): column(item.name) for item in fields(Votes)})
    write_table(path, with_notes(table, {"votes": len(votes)}))


def read_votes(path: Path) -> Votes:
    """The votes written there. UserError naming the file where it cannot be read."""
    table = read_table(path)

    def column(name: str) -> Array:
        values = table.column(_NAMES.get(name, name)).to_pylist()
        if name in _NUMBERS:
            return np.array(values, dtype=np.float64)
        return objects([tuple(row) for row in values] if name in _LISTS else values)

    return Votes(**{item.name: column(item.name) for item in fields(Votes)})


def votes_of(run: Run, units: Sequence[str] | None = None) -> Votes | None:
    """The votes that these rounds used (all where none are named), in their order; None where no round used any."""
    named = run.round_units() if units is None else units
    paths = [run.unit(unit) / VOTES for unit in named if run.done(unit, "vote") is not None]
    parts = [read_votes(path) for path in paths]
    if not parts:
        return None
    return Votes(**{
        item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Votes)
    })

"""How much another wording of a prompt changes the image, as a share of the change by another seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from upturn.errors import UserError
from upturn.loop.run_context import RunContext
from upturn.runs import status
from upturn.statistics.consistency import consistency
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Samples


def rows_of(grid: Samples, group: Sequence[str]) -> list[Array] | None:
    """Rows of the grid for each wording of a group, from one noise; None where they are not all there."""
    keys = grid.fields["key"]
    found: list[Array] = []
    for text in group:
        rows = np.array([row for row, prompt in enumerate(grid.prompts) if prompt.text == text], dtype=np.int64)
        sets = [rows[grid.group[rows] == number] for number in np.unique(grid.group[rows])]
        wanted = sets[:1] if not found else [own for own in sets if np.array_equal(keys[own], keys[found[0]])][:1]
        if not wanted:
            return None
        found += wanted
    return found


def wording_effects(run: Run, wordings: Sequence[Sequence[str]]) -> list[list[dict[str, Any]]]:
    """For each group of wordings, each of them against the first: {"text", "ratio", "flipped"}.

    ``ratio`` is the mean distance of features at one seed, over that between seeds (see ``consistency``): 0 where the
    wording makes no difference, 1 where it makes as much as another seed. null where seeds cannot be compared.
    """
    context = RunContext.open(run)
    grid = parquet_tables.read_samples(run.unit(status.read(run).incumbent.unit) / "grid.parquet")
    try:
        features = context.tools.embed(grid)
    except UserError:
        return [[{"text": text, "ratio": None, "flipped": None} for text in group] for group in wordings]
    out = []
    for group in wordings:
        rows = rows_of(grid, group)
        pairs = []
        for place, text in enumerate(group):
            pair = None if rows is None else (features[rows[0]][None], features[rows[place]][None])
            found = None if pair is None else consistency(*pair, 0)
            pairs.append({
                "text": text, "ratio": None if found is None else found.ratio,
                "flipped": None if found is None else found.flipped,
            })
        out.append(pairs)
    return out

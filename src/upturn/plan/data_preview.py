"""The data of a recipe as the tokens that its model reads: what is learned, how long rows are, what does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upturn import seeds
from upturn.config.recipe import Recipe
from upturn.errors import UserError
from upturn.loop.assemble import assemble
from upturn.types import Array, TokenRows, concatenate

_QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class DataPreview:
    """All rows in the order of the data.

    rows     as tokens, cut as training cuts them;  parts "train" or "held_out" of each;  layout of the data, "" unknown
    """

    rows: TokenRows
    parts: Sequence[str]
    layout: str
    notes: tuple[str, ...]

    @property
    def texts(self) -> list[str]:
        """Each row as the model reads it."""
        return ["".join(pieces) for pieces in self.rows.pieces]

    def lengths(self) -> dict[str, object]:
        """Tokens of a row before it is cut, and how many are learned; rows that are longer than the limit."""
        full, learned = np.array(self.rows.full), np.array(list(map(sum, self.rows.learned)))
        return {
            "rows": len(full), "tokens": _summary(full), "learned": _summary(learned),
            "limit": self.rows.limit, "too_long": int((full > self.rows.limit).sum()),
        }


def preview(recipe: Recipe) -> DataPreview:
    """What training will read. Raises UserError where the model reads no tokens, or a row cannot be read."""
    parts = assemble(recipe)
    splits = parts.source.load()
    every = concatenate([splits.train, splits.held_out])
    # both parts number their groups by the rows of the data
    group = np.concatenate([splits.train.group, splits.held_out.group])
    order = np.lexsort((every.candidate, group))
    where = np.array(["train"] * len(splits.train) + ["held_out"] * len(splits.held_out))[order]
    name = recipe.main_model
    rows = parts.model(name).as_tokens(every.take(order), splits.train, seeds.key(recipe.seed, "build", name))
    if rows is None:
        raise UserError(
            f"the model '{recipe.models[name].name}' reads no tokens", where=f"models.{name}",
            fix="'upturn data' is for language models; for captions of images use 'upturn captions'.",
        )
    return DataPreview(rows, where.tolist(), splits.layout, (*splits.notes, *rows.notes))


def _summary(counts: Array) -> dict[str, float]:
    if not len(counts):
        return {}
    found = {"least": float(counts.min()), **{name: float(np.quantile(counts, q)) for name, q in _QUANTILES.items()}}
    return found | {"most": float(counts.max()), "mean": float(counts.mean()), "sum": float(counts.sum())}

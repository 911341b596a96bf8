"""Applies the recipe's caption strategy to both parts of the data, and counts empty captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from upturn.data.caption_fields import count_note
from upturn.protocols import Caption
from upturn.types import Samples, Splits, concatenate


def captioned(strategy: Caption, splits: Splits, folder: Path | None, key: int) -> Splits:
    """Splits with the strategy's captions; notes say what was done, ids stay those of the images.

    Both parts are captioned together, so a model runs once and counts are of all data. Empty captions are counted
    where the strategy does not say that they are wanted (``wants_empty``).
    """
    parts = [part for part in (splits.train, splits.held_out) if len(part)]
    both, notes = strategy.caption(concatenate(parts), splits.classes, folder, key)
    every = [*splits.notes, *notes]
    every += empty_note(strategy, both)
    size = len(splits.train)
    train, held_out = both.take(np.arange(size)), both.take(np.arange(size, len(both)))
    return replace(
        splits, train=_placed(train, splits.train), held_out=_placed(held_out, splits.held_out), notes=tuple(every)
    )


def empty_note(strategy: Caption, samples: Samples) -> list[str]:
    """How many captions are empty, where the strategy should write one."""
    if strategy.wants_empty:
        return []
    empty = [row for row, prompt in enumerate(samples.prompts) if not prompt.text.strip()]
    return count_note(samples, empty, "have an empty caption")


def texts(
    strategy: Caption, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
) -> tuple[list[str], list[str]]:
    """The first caption of each sample by a strategy, as an evaluation requires it, and notes."""
    made, notes = strategy.caption(samples, classes, folder, key)
    return [prompt.text for prompt in made.prompts], [*notes, *empty_note(strategy, made)]


def _placed(made: Samples, given: Samples) -> Samples:
    """With the group numbers that the part had, and its own fields."""
    kept = {name: column for name, column in given.fields.items() if name not in made.fields and name != "captions"}
    return replace(made, group=given.group, fields={**kept, **made.fields})

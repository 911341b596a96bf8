"""Words and n-grams of texts, as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np

from upturn.types import Array

Unit = Literal["words", "characters"]  # words: letters and digits together, each other sign by itself
_WORD = re.compile(r"\w+|[^\w\s]")


def units(texts: Iterable[Any], unit: Unit) -> list[list[str]]:
    """The words, or the characters, of each text."""
    return [_WORD.findall(str(text)) if unit == "words" else list(str(text)) for text in texts]


def grams(texts: Sequence[Sequence[str]], n: int) -> tuple[Array, Array]:
    """The n-grams of all texts, as numbers from 0 without gaps, and (N + 1,) where each text's begin."""
    sizes = np.array([len(row) for row in texts], dtype=np.int64)
    place: dict[str, int] = {}
    flat = np.fromiter(
        (place.setdefault(unit, len(place)) for unit in chain.from_iterable(texts)), np.int64, int(sizes.sum())
    )
    lengths = np.maximum(sizes - n + 1, 0)
    ends = np.cumsum(sizes)
    starts = np.repeat(ends - sizes, lengths) + _within(lengths)
    found = np.zeros(len(starts), dtype=np.int64)
    for i in range(n):  # renumbered at each step, so that numbers stay small whatever n
        found = np.unique(found * max(len(place), 1) + flat[starts + i], return_inverse=True)[1].reshape(-1)
    return found, np.concatenate([[0], np.cumsum(lengths)])


def _within(lengths: Array) -> Array:
    """0, 1, … within each row, rows in sequence."""
    place: Array = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return place

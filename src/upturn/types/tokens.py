"""Rows of data as the tokens that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenRows:
    """N rows: the tokens of each, which of them are learned (0 or 1), and how each token reads.

    ``limit`` is the number of tokens that a row may have, ``full`` the number that each has before it is cut.
    """

    tokens: Sequence[Sequence[int]]
    learned: Sequence[Sequence[int]]
    pieces: Sequence[Sequence[str]]
    full: Sequence[int]
    limit: int
    notes: tuple[str, ...] = ()

"""Rows of data as the tokens that a model reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class TokenRows:
    """N rows: the tokens of each, which of them are learned (0 or 1), and how a token reads.

    ``limit`` is the number of tokens that a row may have, ``full`` the number that each has before it is cut.
    """

    tokens: Sequence[Sequence[int]]
    learned: Sequence[Sequence[int]]
    full: Sequence[int]
    limit: int
    spelled: Callable[[int], str]
    notes: tuple[str, ...] = ()

    @cached_property
    def pieces(self) -> list[list[str]]:
        """The text of each token."""
        known = {token: self.spelled(token) for row in self.tokens for token in row}
        return [[known[token] for token in row] for row in self.tokens]

"""Untrusted regular expressions, matched with a time limit.

Backtracking takes time exponential in the text for patterns like ``(a+)+b``. The standard ``re`` cannot be stopped; the
``regex`` package reads the same language and can be stopped.
"""

from __future__ import annotations

import functools
from typing import Any

SECONDS = 0.2  # for one pattern on one text; a usual match takes microseconds


class BadPattern(Exception):
    """Not a regular expression; the text is the reason."""


class TookTooLong(Exception):
    """The search was stopped before it had a result."""


@functools.lru_cache(maxsize=4096)
def compiled(pattern: str) -> Any:
    """Raises BadPattern."""
    import regex

    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"{pattern!r} is no regular expression: {error}") from error


def found(pattern: str, text: str, whole: bool = False, seconds: float = SECONDS) -> bool:
    """Whether the pattern matches the whole text, or a part of it. Raises BadPattern and TookTooLong."""
    expression = compiled(pattern)
    search = expression.fullmatch if whole else expression.search
    try:
        return search(text, timeout=seconds) is not None
    except TimeoutError:
        raise TookTooLong(f"the pattern took longer than {seconds:g} s") from None

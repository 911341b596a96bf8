"""Regular expressions over texts that somebody else wrote, stopped in time.

Backtracking takes time exponential in the text for patterns like ``(a+)+b``. The standard ``re`` cannot be stopped; the
``regex`` package reads the same language and can.
"""

from __future__ import annotations

import functools
from typing import Any

SECONDS = 0.2  # for one pattern on one text; an honest match takes microseconds


class BadPattern(Exception):
    """No regular expression; says why."""


class TookTooLong(Exception):
    """The search was stopped before it knew."""


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

"""``save_every:`` of a training: so many steps, or a time such as "10 min"."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}  # seconds
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)")


def checked(value: object) -> Any:
    """The value as the recipe states it. Raises ValueError for anything but steps and times above 0."""
    steps = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not steps and not (isinstance(value, str) and seconds_of(value)):
        raise ValueError("this is neither a number of steps (500) nor a time ('90 s', '10 min', '1 h'), above 0")
    return value


def seconds_of(value: int | str) -> float | None:
    """Seconds between two checkpoints; None where the value counts steps."""
    if isinstance(value, int):
        return None
    found = _TIME.fullmatch(value)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0

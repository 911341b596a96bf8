"""The names of a run's units: data, models/<name>, rounds/NNN, rounds/NNN/<stage>."""

from __future__ import annotations

import re

_UNIT = re.compile(r"data|models/[^/]+|rounds/\d{3,}(/[^/]+)?")
FOLDERS = ("data", "models/*", "rounds/*", "rounds/*/*")  # where units are looked for


def checked(name: str) -> str:
    """``name``, or ValueError where no unit is called so."""
    if not _UNIT.fullmatch(name) or ".." in name:
        raise ValueError(f"'{name}' is no unit")
    return name


def unit_round(unit: str) -> int:
    """The round of a unit, -1 for data and helper models, which come before all rounds."""
    parts = unit.split("/")
    return int(parts[1]) if parts[0] == "rounds" else -1


def round_unit(number: int, stage: str | None = None) -> str:
    """``rounds/003``, or ``rounds/000/pretrain``."""
    return f"rounds/{number:03d}" + (f"/{stage}" if stage else "")

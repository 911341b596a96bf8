"""Names of a run's units, built and read: data, models/<name>, rounds/NNN, rounds/NNN/<training>."""

from __future__ import annotations

import re

DATA = "data"
FOLDERS = (DATA, "models/*", "rounds/*", "rounds/*/*")  # where units are looked for
_UNIT = re.compile(r"data|models/[^/]+|rounds/\d{3,}(/[^/]+)?")
_MODELS, _ROUNDS = "models/", "rounds/"


def checked(name: str) -> str:
    """``name``, or ValueError where it is no unit's name."""
    if not _UNIT.fullmatch(name) or ".." in name:
        raise ValueError(f"'{name}' is no unit")
    return name


def round_unit(number: int) -> str:
    """``rounds/003``."""
    return f"{_ROUNDS}{number:03d}"


def within(unit: str, name: str) -> str:
    """``rounds/003/judge``: a part of a round with steps of its own, such as one of several trainings."""
    return f"{unit}/{name}"


def stage_unit(name: str) -> str:
    """``rounds/000/pretrain``: a stage before the rounds; all of them together make round 0."""
    return within(round_unit(0), name)


def model_unit(name: str) -> str:
    """``models/judge``: a helper model that is fitted before the rounds."""
    return _MODELS + name


def model_name(unit: str) -> str | None:
    """The name of the helper model whose unit this is; None for other units."""
    return unit.removeprefix(_MODELS) if unit.startswith(_MODELS) else None


def is_round(unit: str) -> bool:
    """Whether the unit is a round or a training within one."""
    return unit.startswith(_ROUNDS)


def unit_round(unit: str) -> int:
    """The round of a unit; -1 for data and helper models, which come before all rounds."""
    return int(unit.split("/")[1]) if is_round(unit) else -1


def whole_round(unit: str) -> str:
    """The round's own unit, for a training within it as for the round itself."""
    return round_unit(unit_round(unit))

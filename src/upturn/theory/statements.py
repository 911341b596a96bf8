"""A forecast: statements, and one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "warn", "danger"]
Kind = Literal["stable", "drifts", "collapses"]

KEPT_WELL, KEPT_HALF = 0.9, 0.5  # of a diversity, at the last round: below the first warn, below the second danger


@dataclass(frozen=True)
class Statement:
    """One statement of a forecast: its ``text``, the ``assumption`` that it needs, its ``numbers`` and its level."""

    text: str
    assumption: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    level: Level = "ok"


@dataclass(frozen=True)
class Verdict:
    """``word`` sums up: "stable", "drifts slowly", "settles away from the data", "collapses (or: diverges) in about n
    rounds". ``half_life`` is that n: rounds until the first diversity is halved (variance doubled), inf if never.
    ``kept`` is the forecast diversity after the configured rounds, as a share of round 0's, and ``kind`` its
    class: "stable" from 0.9 up, "drifts", "collapses" below 0.5 (of what grows instead: its inverse).
    """

    word: str
    half_life: float
    statements: tuple[Statement, ...]
    kind: Kind = "stable"
    kept: float = 1.0


def kind_of(kept: float) -> Kind:
    """The class of a diversity after all rounds over that of round 0."""
    size = min(kept, 1 / kept) if kept > 0 else 0.0
    return "stable" if size >= KEPT_WELL else "drifts" if size >= KEPT_HALF else "collapses"


def level_of(kept: float) -> Level:
    return "ok" if kept >= KEPT_WELL else "warn" if kept >= KEPT_HALF else "danger"

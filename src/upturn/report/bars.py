"""Stacked horizontal bars on one scale, drawn by the macro ``bar_chart``."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = 10  # of the page's style sheet (c0 … c9); further series reuse them


@dataclass(frozen=True)
class Segment:
    share: float  # of the whole width
    colour: str  # a class of the style sheet
    label: str  # inside the segment, if it fits
    title: str


@dataclass(frozen=True)
class Bar:
    title: str
    note: str
    segments: tuple[Segment, ...]
    end: str = ""


@dataclass(frozen=True)
class BarChart:
    legend: tuple[tuple[str, str], ...]  # (colour, name)
    bars: tuple[Bar, ...]
    note: str = ""

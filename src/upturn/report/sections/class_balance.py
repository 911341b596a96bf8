"""Section: the shares of the classes among the samples of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.bars import COLOURS, Bar, BarChart, Segment
from upturn.report.facts import Column, Facts
from upturn.report.section import Section

_LABEL = (0.02, 0.011)  # share of the width that a label in a segment needs: its edges, and each character


@dataclass(frozen=True)
class ClassBalance(Section):
    """Class shares of each model as stacked bars."""

    title: ClassVar[str] = "Class shares"
    contents: ClassVar[str] = "Classes"
    anchor: ClassVar[str] = "classes"
    order: ClassVar[int] = 80

    def render(self, facts: Facts) -> Markup | None:
        chart = class_shares(facts)
        return self.fill(chart=chart) if chart is not None else None


def class_shares(facts: Facts) -> BarChart | None:
    """Of the first metric that gives shares by class."""
    for name in facts.metric_names:
        measured = [(c, _shares(c.metrics[name])) for c in facts.columns if name in c.metrics]
        measured = [(c, shares) for c, shares in measured if shares]
        if measured:
            classes = list(dict.fromkeys(label for _, shares in measured for label in shares))
            legend = tuple((f"c{i % COLOURS}", titles.visible(label)) for i, label in enumerate(classes))
            bars = tuple(Bar(c.title, _decision(c), _segments(shares, classes)) for c, shares in measured)
            return BarChart(legend, bars)
    return None


def _shares(measured: Mapping[str, object]) -> dict[str, tuple[float, str]]:
    """Class -> (share, text with its interval)."""
    details = measured.get("details")
    found = details.get("shares") if isinstance(details, Mapping) else None
    if not isinstance(found, Mapping):
        return {}
    out = {}
    for label, entry in found.items():
        measured = entry if isinstance(entry, Mapping) else {"value": entry}
        value = measured.get("value")
        if isinstance(value, (int, float)):
            out[str(label)] = (float(value), titles.interval(measured))
    return out


def _segments(shares: Mapping[str, tuple[float, str]], classes: Sequence[str]) -> tuple[Segment, ...]:
    out = []
    for i, label in enumerate(classes):
        value, text = shares.get(label, (0.0, ""))
        short = titles.visible(label) if value >= _LABEL[0] + _LABEL[1] * len(label) else ""
        out.append(Segment(value, f"c{i % COLOURS}", short, f"{label}: {text}"))
    return tuple(out)


def _decision(column: Column) -> str:
    return column.decision if column.decision in {"promoted", "rejected"} else column.note

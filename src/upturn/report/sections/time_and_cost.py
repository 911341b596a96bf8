"""Section: wall time by step, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.bars import COLOURS, Bar, BarChart, Segment
from upturn.report.facts import Facts
from upturn.report.section import Section
from upturn.runs.steps import STEP_TITLES


@dataclass(frozen=True)
class TimeAndCost(Section):
    """Time of each stage and round, by step."""

    title: ClassVar[str] = "Time and cost"
    anchor: ClassVar[str] = "cost"
    order: ClassVar[int] = 140

    def render(self, facts: Facts) -> Markup | None:
        chart = times(facts)
        return self.fill(chart=chart) if chart is not None else None


def times(facts: Facts) -> BarChart | None:
    """Seconds by step, all bars on one scale."""
    zero, *rounds = facts.status.rounds
    rows: list[tuple[str, Mapping[str, float]]] = [("before training", _setup(facts))]
    rows += [(s.name, s.seconds) for s in zero.stages] + [(f"round {r.round}", r.seconds) for r in rounds]
    rows = [(title, seconds) for title, seconds in rows if sum(seconds.values()) > 0]
    if not rows:
        return None
    longest = max(sum(seconds.values()) for _, seconds in rows)
    used = [step for step in STEP_TITLES if any(seconds.get(step, 0) > 0 for _, seconds in rows)]
    colours = {step: f"c{place % COLOURS}" for place, step in enumerate(used)}
    bars = tuple(
        Bar(title, "", tuple(
            Segment(
                seconds[step] / longest, colours[step], "", f"{STEP_TITLES[step]}: {titles.duration(seconds[step])}"
            )
            for step in used if seconds.get(step, 0) > 0
        ), titles.duration(sum(seconds.values())))
        for title, seconds in rows
    )
    return BarChart(tuple((colours[step], STEP_TITLES[step]) for step in used), bars, _cost(facts, rows))


def _setup(facts: Facts) -> dict[str, float]:
    """Steps before the first stage; a helper model is recorded by its unit, and counts as fitting."""
    found: dict[str, float] = {}
    for name, seconds in facts.status.setup_seconds.items():
        step = name if name in STEP_TITLES else "fit"
        found[step] = found.get(step, 0.0) + seconds
    return found


def _cost(facts: Facts, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    total = sum(sum(seconds.values()) for _, seconds in rows)
    text = f"In all {titles.duration(total)}"
    price = facts.recipe.usd_per_hour
    if price:
        return f"{text}, {titles.usd(total / 3600 * price)} at {titles.usd(price)} an hour."
    return f"{text}. The recipe states no price per hour (usd_per_hour)."

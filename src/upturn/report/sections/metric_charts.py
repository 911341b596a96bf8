"""Section: every metric, model by model, with intervals, references and the gate's limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.report import curves, titles
from upturn.report.cards import Card, direction
from upturn.report.facts import Facts
from upturn.report.section import Section


@dataclass(frozen=True)
class MetricCharts(Section):
    """Metrics of every model as charts and as a table."""

    title: ClassVar[str] = "Metrics by model"
    contents: ClassVar[str] = "Metrics"
    anchor: ClassVar[str] = "metrics"
    order: ClassVar[int] = 30

    def render(self, facts: Facts) -> Markup | None:
        cards = metric_cards(facts)
        return self.fill(cards=cards, columns=facts.columns, figures=figures(facts)) if cards else None


def metric_cards(facts: Facts) -> list[Card]:
    """One for each metric; the gate's comes first, then those of guards."""
    gate = facts.recipe.gate
    watched = [gate.metric, *gate.guards] if gate is not None else []
    names = sorted(facts.metric_names, key=lambda n: watched.index(n) if n in watched else len(watched))
    cards = []
    for name in names:
        term = titles.term(name, facts.specs.get(name))
        lines, notes = _lines(facts, name, term)
        figure = curves.metric(name, facts.columns, facts.kept, lines)
        notes += _notes(facts, name)
        if figure is None:
            figure = Markup("")
            notes = notes or ["It could not be measured."]
        decides = gate is not None and name == gate.metric
        cards.append(Card(term.title, term.meaning, direction(term.better), figure, tuple(notes), decides))
    return cards


def _lines(facts: Facts, name: str, term: titles.Term) -> tuple[list[curves.ReferenceLine], list[str]]:
    lines: list[curves.ReferenceLine] = []
    notes: list[str] = []
    newest = [c.metrics[name].get("details") or {} for c in facts.columns if name in c.metrics]
    if term.reference is not None and newest:
        value = newest[-1].get(term.reference[0])
        if isinstance(value, (int, float)):
            lines.append(curves.ReferenceLine(float(value), term.reference[1], "reference"))
            notes.append(f"Dotted line: {term.reference[1]} ({titles.number(float(value))}).")
    limits = _limits(facts, name)
    if limits:
        lines += [curves.ReferenceLine(limit, "the gate's limit", "limit") for limit in limits]
        notes.append(f"Red line: the gate's limit ({titles.listed([titles.number(limit) for limit in limits])}).")
    return lines, notes


def _limits(facts: Facts, name: str) -> list[float]:
    gates = [r.gate for r in facts.status.rounds if r.gate]
    guards = [g for gate in gates[-1:] for g in gate.get("guards") or ()]
    return [float(g["limit"]) for g in guards if g.get("metric") == name and g.get("limit") is not None]


def _notes(facts: Facts, name: str) -> list[str]:
    """Notes of the metric; one that several models share is written once."""
    titles_of: dict[str, list[str]] = {}
    for column in facts.columns:
        note = str(column.metrics.get(name, {}).get("note") or "")
        if note:
            titles_of.setdefault(note, []).append(column.title)
    everywhere = len(facts.columns)
    return [note if len(own) == everywhere else f"{titles.listed(own)}: {note}" for note, own in titles_of.items()]


def figures(facts: Facts) -> list[tuple[str, list[str]]]:
    """Metric -> ``value [low, high]`` of each column, as in metrics.json but rounded."""
    return [(n, [titles.interval(c.metrics.get(n)) for c in facts.columns]) for n in facts.metric_names]

"""Cards and tables model by model: metrics, decisions, losses, lineage, nearest real samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from upturn.report import curves, titles
from upturn.report.choices import Example, look
from upturn.report.facts import DATA, Column, Facts

_PAIRS = 10


@dataclass(frozen=True)
class Card:
    """A small figure with its words."""

    title: str
    meaning: str
    direction: str
    figure: Markup
    notes: tuple[str, ...] = ()
    gated: bool = False


@dataclass(frozen=True)
class Verdict:
    """A round as it was judged, or where it stands."""

    title: str
    decision: str  # promoted | rejected | running | not begun | …
    reason: str
    test: str
    guards: tuple[tuple[bool, str], ...]


@dataclass(frozen=True)
class Origin:
    """What a model was made from."""

    title: str
    model: str
    parent: str
    real: str
    synthetic: str
    fraction: str
    steps: str
    removed: bool


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
        direction = {"higher": "higher is better", "lower": "lower is better", "neither": ""}[term.better]
        decides = gate is not None and name == gate.metric
        cards.append(Card(term.title, term.meaning, direction, figure, tuple(notes), decides))
    return cards


def _lines(facts: Facts, name: str, term: titles.Term) -> tuple[list[curves.Line], list[str]]:
    lines: list[curves.Line] = []
    notes: list[str] = []
    newest = [c.metrics[name].get("details") or {} for c in facts.columns if name in c.metrics]
    if term.reference is not None and newest:
        value = newest[-1].get(term.reference[0])
        if isinstance(value, (int, float)):
            lines.append(curves.Line(float(value), term.reference[1], "reference"))
            notes.append(f"Dotted: {term.reference[1]} ({titles.number(float(value))}).")
    limits = _limits(facts, name)
    if limits:
        lines += [curves.Line(limit, "the gate's limit", "limit") for limit in limits]
        notes.append(f"Red: the gate's limit ({titles.listed([titles.number(limit) for limit in limits])}).")
    return lines, notes


def _limits(facts: Facts, name: str) -> list[float]:
    gates = [r.gate for r in facts.status.rounds if r.gate]
    guards = [g for gate in gates[-1:] for g in gate.get("guards") or ()]
    return [float(g["limit"]) for g in guards if g.get("metric") == name and g.get("limit") is not None]


def _notes(facts: Facts, name: str) -> list[str]:
    """What the metric itself had to say; the same words of several models once."""
    said: dict[str, list[str]] = {}
    for column in facts.columns:
        note = str(column.metrics.get(name, {}).get("note") or "")
        if note:
            said.setdefault(note, []).append(column.title)
    everywhere = len(facts.columns)
    return [note if len(who) == everywhere else f"{titles.listed(who)}: {note}" for note, who in said.items()]


def figures(facts: Facts) -> list[tuple[str, list[str]]]:
    """Metric -> ``value [low, high]`` of each column, as in metrics.json but rounded."""
    return [(n, [titles.interval(c.metrics.get(n)) for c in facts.columns]) for n in facts.metric_names]


def verdicts(facts: Facts) -> list[Verdict]:
    """Every round that the recipe asked for."""
    found = []
    for r in facts.status.rounds[1:]:
        if r.gate is None:
            state = {"pending": "not begun", "running": "unfinished"}.get(r.state, r.state)
            found.append(Verdict(f"Round {r.round}", state, "", "", ()))
            continue
        guards = tuple((bool(g.get("holds")), str(g.get("reason", ""))) for g in r.gate.get("guards") or ())
        found.append(Verdict(
            f"Round {r.round}", str(r.gate.get("decision")), str(r.gate.get("reason", "")), _test(r.gate), guards
        ))
    return found


def _test(gate: Mapping[str, Any]) -> str:
    if gate.get("difference") is None or gate.get("metric") is None:
        return ""
    low, high = gate.get("low"), gate.get("high")
    places = titles.decimals((high - low) / 2) if low is not None and high is not None else 3
    against = _model_name(str(gate.get("incumbent", "")))
    change = titles.signed(gate["difference"], places)
    text = f"Tested against {against or 'the model before'}: {gate['metric']} {change}"
    if low is not None and high is not None:
        text += f" ({titles.signed(low, places)} to {titles.signed(high, places)})"
    if gate.get("p") is not None and gate.get("alpha") is not None:
        text += f". p, the chance of such a gain by luck, is {titles.number(gate['p'])}"
        text += f"; {titles.number(gate['alpha'])} or less was needed"
    return f"{text}."


def _model_name(unit: str) -> str:
    last = unit.rpartition("/")[2]
    return f"round {int(last)}" if last.isdigit() else last


def loss_cards(facts: Facts) -> tuple[list[Card], list[Card]]:
    """Of the policy stage by stage, and of the judges."""
    own = [(training.title, training.unit) for training in facts.trainings]
    judges = [(name, f"models/{name}") for name, model in facts.recipe.models.items() if model.fit is not None]
    return _losses(facts, own, "train"), _losses(facts, judges, "fit")


def _losses(facts: Facts, units: list[tuple[str, str]], step: str) -> list[Card]:
    cards = []
    for title, unit in units:
        points = facts.losses(unit)
        figure = curves.loss(points, f"loss of {title} by step")
        if figure is None:
            continue
        held = [p["held_out"] for p in points if p.get("held_out") is not None]
        end = f"ends at {titles.number(points[-1]['loss'])}" + (f", held out {titles.number(held[-1])}" if held else "")
        stopped = facts.info(unit, step).get("stopped")
        cards.append(Card(title, end, "", figure, (f"Stopped early: {stopped}.",) if stopped else ()))
    return cards


def lineage(facts: Facts) -> list[Origin]:
    """A row for each model of the policy, those between two trainings of a round too."""
    removed = {d.unit for d in facts.run.deletions() if d.name == "model"}
    found = []
    for training in facts.trainings:
        unit = training.unit
        info, counts = facts.info(unit, "train"), facts.counts(unit, "mix")
        if not info:
            continue
        found.append(Origin(
            training.title, str(info.get("model", "")), str(info.get("parent") or "nothing (new weights)"),
            titles.number(counts.get("real"), 0), titles.number(counts.get("synthetic"), 0),
            titles.share(facts.real_fraction(unit)), titles.number(info.get("steps"), 0), unit in removed,
        ))
    return found


def nearest_pairs(facts: Facts) -> tuple[str, list[tuple[Example, Example, str]]]:
    """The kept model's samples that are closest to a training sample, each beside it, closest first."""
    kept = facts.kept
    pairs = _pairs(kept) if kept is not None else []
    if kept is None or not pairs:
        return "", []
    classes = [str(name) for name in facts.info(DATA, "load").get("classes", ())]
    made = facts.some(kept.unit, "evaluation.parquet", [str(p["sample"]) for p in pairs])
    real = facts.some(DATA, "samples.parquet", [str(p["real"]) for p in pairs])
    shown = [
        (look(made[p["sample"]], classes), look(real[p["real"]], classes), titles.number(float(p["distance"])))
        for p in pairs if p["sample"] in made and p["real"] in real
    ]
    return kept.full_title, shown


def _pairs(column: Column) -> list[Mapping[str, Any]]:
    for measured in column.metrics.values():
        pairs = (measured.get("details") or {}).get("pairs")
        if pairs:
            return list(pairs)[:_PAIRS]
    return []

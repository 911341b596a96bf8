"""Stacked bars: shares of classes, real and synthetic, seconds by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upturn.report import titles
from upturn.report.facts import DATA, Column, Facts

_COLOURS = 10  # of the page; further classes take them again
_LABEL = (0.02, 0.011)  # share of the width that a label in a segment needs: its edges, and each character
_STEPS = (
    "load", "provenance", "filter", "score_words", "fit", "sample", "judge", "vote", "edit", "score", "curate", "mix",
    "train", "evaluate", "gate", "checkpoints",
)


@dataclass(frozen=True)
class Segment:
    share: float  # of the whole width
    colour: str  # a class of the page
    label: str  # inside, where there is room
    title: str


@dataclass(frozen=True)
class Bar:
    title: str
    note: str
    segments: tuple[Segment, ...]
    end: str = ""


@dataclass(frozen=True)
class Bars:
    legend: tuple[tuple[str, str], ...]  # (colour, name)
    bars: tuple[Bar, ...]
    note: str = ""


def class_shares(facts: Facts) -> Bars | None:
    """From the first metric that gives shares by class."""
    for name in facts.metric_names:
        shown = [(c, _shares(c.metrics[name])) for c in facts.columns if name in c.metrics]
        shown = [(c, shares) for c, shares in shown if shares]
        if shown:
            classes = list(dict.fromkeys(label for _, shares in shown for label in shares))
            legend = tuple((f"c{i % _COLOURS}", titles.visible(label)) for i, label in enumerate(classes))
            bars = tuple(Bar(c.title, _decision(c), _segments(shares, classes)) for c, shares in shown)
            return Bars(legend, bars)
    return None


def _shares(measured: Mapping[str, object]) -> dict[str, tuple[float, str]]:
    """Class -> (share, as shown with its interval)."""
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
        value, shown = shares.get(label, (0.0, ""))
        short = titles.visible(label) if value >= _LABEL[0] + _LABEL[1] * len(label) else ""
        out.append(Segment(value, f"c{i % _COLOURS}", short, f"{label}: {shown}"))
    return tuple(out)


def _decision(column: Column) -> str:
    return column.decision if column.decision in {"promoted", "rejected"} else column.note


def real_fraction(facts: Facts) -> Bars | None:
    """Real and synthetic weight of what each model was trained on."""
    bars = []
    for training in facts.trainings:
        fraction, counts = facts.real_fraction(training.unit), facts.counts(training.unit, "mix")
        if fraction is None:
            continue
        real, made = counts.get("real", 0), counts.get("synthetic", 0)
        parts = _real(facts, fraction, real)
        if fraction < 1:
            parts.append((1 - fraction, "made", f"synthetic {titles.share(1 - fraction)}", f"{made} synthetic samples"))
        segments = tuple(Segment(s, colour, label if s > 0.2 else "", title) for s, colour, label, title in parts)
        end = f"{titles.number(real, 0)} + {titles.number(made, 0)}" if counts else ""
        bars.append(Bar(training.title, "", segments, end))
    legend = (("real", "real"), *((("unsure", "real or not"),) if facts.synthetic_in_real else ()),
              ("made", "synthetic"))
    return Bars(legend, tuple(bars), "On the right: how many real + synthetic samples.") if bars else None


def _real(facts: Facts, fraction: float, count: int) -> list[tuple[float, str, str, str]]:
    """(share, colour, label, title) of what claims to be real; where it was looked into, of what is sure and unsure."""
    title = titles.plural(count, "real sample")
    if facts.synthetic_in_real is None:
        return [(fraction, "real", f"real {titles.share(fraction)}", title)]
    ends = [fraction * (1 - share) for share in reversed(facts.synthetic_in_real)]
    shown = f"real {titles.share(ends[0])} to {titles.share(ends[1])}"
    found = [(ends[0], "real", shown if ends[0] >= ends[1] - ends[0] else "", title),
             (ends[1] - ends[0], "unsure", "" if ends[0] >= ends[1] - ends[0] else shown, f"{shown}, of {title}")]
    hidden = fraction - ends[1]
    return [*found, *([(hidden, "made", "", "synthetic, among what claims to be real")] if hidden > 0 else [])]


def times(facts: Facts) -> Bars | None:
    """Seconds by step, all bars on one scale."""
    zero, *rounds = facts.status.rounds
    rows: list[tuple[str, Mapping[str, float]]] = []
    setup = facts.status.setup_seconds
    if setup:
        fitted = sum(seconds for name, seconds in setup.items() if name.startswith("models/"))
        data = {step: seconds for step, seconds in setup.items() if not step.startswith("models/")}
        rows.append(("before training", data | {"fit": fitted}))
    rows += [(s.name, s.seconds) for s in zero.stages] + [(f"round {r.round}", r.seconds) for r in rounds]
    rows = [(title, seconds) for title, seconds in rows if sum(seconds.values()) > 0]
    if not rows:
        return None
    longest = max(sum(seconds.values()) for _, seconds in rows)
    used = [step for step in _STEPS if any(seconds.get(step, 0) > 0 for _, seconds in rows)]
    colours = {step: f"c{place % _COLOURS}" for place, step in enumerate(used)}
    bars = tuple(
        Bar(title, "", tuple(
            Segment(
                seconds[step] / longest, colours[step], "", f"{titles.STEPS[step]}: {titles.duration(seconds[step])}"
            )
            for step in used if seconds.get(step, 0) > 0
        ), titles.duration(sum(seconds.values())))
        for title, seconds in rows
    )
    return Bars(tuple((colours[step], titles.STEPS[step]) for step in used), bars, _cost(facts, rows))


def _cost(facts: Facts, rows: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    total = sum(sum(seconds.values()) for _, seconds in rows)
    text = f"In all {titles.duration(total)}"
    price = facts.recipe.usd_per_hour
    if price:
        return f"{text}, {titles.usd(total / 3600 * price)} at {titles.usd(price)} an hour."
    return f"{text}. No price an hour was stated (usd_per_hour in the recipe)."


def data_counts(facts: Facts) -> str:
    counts = facts.counts(DATA, "load")
    if not counts:
        return ""
    return (
        f"{titles.plural(counts.get('train', 0), 'real sample')} to train on, "
        f"{titles.number(counts.get('held_out', 0), 0)} held out that no training sees."
    )

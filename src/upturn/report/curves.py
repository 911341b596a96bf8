"""Line charts: a metric by model with intervals, and the losses of a training by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from upturn.report import svg, titles
from upturn.report.facts import Column
from upturn.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, element

_FAR = 3.0  # a reference line further away than this many spans of the curve would flatten it, and is not drawn
_CHARACTER = 6.0  # width of a letter of an axis label
_SPAN_OF_LOG = 30.0  # losses that fall by more than this factor are drawn on a logarithmic axis


@dataclass(frozen=True)
class ReferenceLine:
    """A horizontal line for comparison."""

    value: float
    label: str
    kind: str  # "reference" | "limit"


@dataclass(frozen=True)
class _Mark:
    name: str
    column: Column
    x: float
    value: float
    low: float | None
    high: float | None
    title: str


def metric(name: str, columns: Sequence[Column], kept: Column | None, lines: Sequence[ReferenceLine]) -> Markup | None:
    """Values with 95% intervals; a line joins stages and promoted rounds, crosses are rejected rounds."""
    measured = [c for c in columns if c.metrics.get(name, {}).get("value") is not None]
    if not measured:
        return None
    slot = (WIDTH - LEFT - RIGHT) / len(columns)
    xs = {c.unit: LEFT + slot * (i + 0.5) for i, c in enumerate(columns)}
    marks = [_mark(name, c, xs[c.unit]) for c in measured]
    ends = [v for m in marks for v in (m.value, m.low, m.high) if v is not None]
    reach = max(max(ends) - min(ends), abs(max(ends)) * 0.02, 1e-9)
    near = [x for x in lines if min(ends) - _FAR * reach <= x.value <= max(ends) + _FAR * reach]
    y = Axis(*svg.span([*ends, *(x.value for x in near)]), HEIGHT - BOTTOM, TOP)
    body = [svg.y_grid(y), _labels(columns, xs, slot)]
    for line in near:
        at = y(line.value)
        title = element("title", f"{line.label}: {titles.number(line.value)}")
        body.append(element("line", title, x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at, class_=line.kind))
    body += [_path(marks, y), *(_drawn(m, y, kept) for m in marks)]
    return svg.figure(svg.join(body), f"{name} by model: " + "; ".join(m.title for m in marks))


def _mark(name: str, column: Column, x: float) -> _Mark:
    measured = column.metrics[name]
    title = f"{column.full_title}: {titles.interval(measured)}, n = {measured.get('n')}"
    if column.decision == "rejected":
        title += ", rejected"
    return _Mark(name, column, x, measured["value"], measured.get("low"), measured.get("high"), title)


def _path(marks: Sequence[_Mark], y: Axis) -> Markup:
    """A solid line through stages and promoted rounds; a dashed one to each rejected round."""
    kept: list[tuple[float, float]] = []
    branches = []
    for mark in marks:
        point = (mark.x, y(mark.value))
        if mark.column.decision in {"stage", "promoted"}:
            kept.append(point)
        elif kept:
            branches.append(svg.path([kept[-1], point], "aside"))
    return svg.join([*branches, svg.path(kept, "line")] if len(kept) > 1 else branches)


def _drawn(mark: _Mark, y: Axis, kept: Column | None) -> Markup:
    at, kind = y(mark.value), mark.column.decision
    parts = [element("title", mark.title)]
    if mark.low is not None and mark.high is not None:
        parts.append(element("line", x1=mark.x, x2=mark.x, y1=y(mark.low), y2=y(mark.high), class_="interval"))
    if kept is not None and mark.column.unit == kept.unit:
        parts.append(element("circle", cx=mark.x, cy=at, r=7.0, class_="halo"))
        parts.append(_value(mark, y))
    if kind == "rejected":
        d = f"M{mark.x - 4:.1f} {at - 4:.1f}l8 8m0 -8l-8 8"
        parts.append(element("path", d=d, class_="cross"))
    else:
        parts.append(element("circle", cx=mark.x, cy=at, r=4.0, class_="dot"))
    # a wide invisible target for the tooltip
    parts.append(element("rect", x=mark.x - 10, y=float(TOP), width=20, height=HEIGHT - BOTTOM - TOP, class_="target"))
    return element("g", *parts, class_=f"mark {kind}")


def _value(mark: _Mark, y: Axis) -> Markup:
    """The kept model's value, above its interval or, if there is no space, below."""
    text = titles.interval(mark.column.metrics[mark.name]).partition(" ")[0]
    above = min(y(mark.value) - 7.0, y(mark.high if mark.high is not None else mark.value)) - 5.0
    below = max(y(mark.value) + 7.0, y(mark.low if mark.low is not None else mark.value)) + 13.0
    x = min(mark.x, WIDTH - len(text) * _CHARACTER / 2 - 2)
    return element("text", text, x=x, y=above if above > TOP + 6 else below, class_="value mid")


def _labels(columns: Sequence[Column], xs: Mapping[str, float], slot: float) -> Markup:
    """Names below the axis; those that do not fit beside each other use a second line."""
    parts: list[Markup] = []
    ends = [-1e9, -1e9]  # where the last label of each of the two lines ends
    for column in columns:
        wide = len(column.short) * _CHARACTER
        x = min(max(xs[column.unit], wide / 2 + 2), WIDTH - wide / 2 - 2)
        line = next((i for i in (0, 1) if ends[i] + 4 <= x - wide / 2), None)
        if line is None:
            continue
        ends[line] = x + wide / 2
        bad = " bad" if column.decision == "rejected" else ""
        parts.append(element("text", column.short, x=x, y=HEIGHT - BOTTOM + 18.0 + 12 * line, class_=f"tick mid{bad}"))
    return svg.join(parts)


def _known(points: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    return [(p["step"], p[name]) for p in points if p.get(name) is not None and math.isfinite(p[name])]


def loss(points: Sequence[Mapping[str, float]], label: str) -> Markup | None:
    """Training loss (thin) and held-out loss (thick) over steps."""
    train, held = _known(points, "loss"), _known(points, "held_out")
    if len(train) < 2:
        return None
    values = [v for _, v in (*train, *held)]
    log = min(values) > 0 and max(values) > _SPAN_OF_LOG * min(values)
    low, high = (min(values) * 0.9, max(values) * 1.1) if log else svg.span(values)
    y = Axis(low, high, HEIGHT - BOTTOM, TOP, log)
    x = Axis(0.0, max(step for step, _ in train), LEFT, WIDTH - RIGHT)
    body = [svg.y_grid(y)]
    for tick in x.ticks(4):
        body.append(element("text", svg.tick_text(tick), x=x(tick), y=HEIGHT - BOTTOM + 18.0, class_="tick mid"))
    body.append(svg.path([(x(s), y(v)) for s, v in train], "loss-train"))
    if held:
        body.append(svg.path([(x(s), y(v)) for s, v in held], "loss-held"))
        best = min(held, key=lambda point: point[1])
        title = element("title", f"lowest held-out loss {titles.number(best[1])} at step {best[0]:.0f}")
        body.append(element("circle", title, cx=x(best[0]), cy=y(best[1]), r=3.5, class_="dot"))
    return svg.figure(svg.join(body), label)

"""Scatter chart of two metrics: a point with two intervals for each model, joined in the order of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from upturn.report import svg, titles
from upturn.report.facts import Column
from upturn.report.svg import HEIGHT, LEFT, RIGHT, WIDTH, Axis, element

_TOP, _BOTTOM = 26, 44  # space for the names of the axes
_CHARACTER, _LINE = 6.0, 12.0  # size of a letter of a label
_LABEL_POSITIONS = ((8.0, -7.0, ""), (8.0, 15.0, ""), (-8.0, -7.0, "end"), (-8.0, 15.0, "end"))  # best first
_TICKS = 5
_STEP = 4.0  # between two boxes of a line
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """A model's two measurements, as in metrics.json."""

    column: Column
    across: Mapping[str, Any]
    up: Mapping[str, Any]


def figure(points: Sequence[Point | None], kept: Column | None, across: str, up: str) -> Markup | None:
    """A line joins stages and promoted rounds; crosses are rejected rounds; None without a point."""
    known = [point for point in points if point is not None]
    if not known:
        return None
    x = Axis(*svg.span([v for p in known for v in _ends(p.across)]), LEFT, WIDTH - RIGHT)
    y = Axis(*svg.span([v for p in known for v in _ends(p.up)]), HEIGHT - _BOTTOM, _TOP)
    body = [svg.y_grid(y), _x_grid(x)]
    body.append(element("text", f"{up} ↑", x=2.0, y=11.0, class_="tick"))
    body.append(element("text", f"{across} →", x=WIDTH - 2.0, y=HEIGHT - 5.0, class_="tick end"))
    body += [_path(known, x, y), *(_drawn(p, x, y, kept, across, up) for p in known), _labels(known, x, y, kept)]
    values = "; ".join(_title(p, across, up) for p in known)
    return svg.figure(svg.join(body), f"{up} against {across} by model: {values}")


def _ends(measured: Mapping[str, Any]) -> list[float]:
    return [float(measured[part]) for part in ("value", "low", "high") if measured.get(part) is not None]


def _x_grid(x: Axis) -> Markup:
    parts = []
    for tick in x.ticks(_TICKS):
        at = x(tick)
        parts.append(element("line", x1=at, x2=at, y1=_TOP, y2=HEIGHT - _BOTTOM, class_="grid"))
        parts.append(element("text", svg.tick_text(tick), x=at, y=HEIGHT - _BOTTOM + 15.0, class_="tick mid"))
    return svg.join(parts)


def _path(points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    """A solid line through stages and promoted rounds; a dashed one to each rejected round."""
    line: list[tuple[float, float]] = []
    branches = []
    for point in points:
        place = (x(point.across["value"]), y(point.up["value"]))
        if point.column.decision in {"stage", "promoted"}:
            line.append(place)
        elif line:
            branches.append(svg.path([line[-1], place], "aside"))
    return svg.join([*branches, svg.path(line, "line")] if len(line) > 1 else branches)


def _title(point: Point, across: str, up: str) -> str:
    text = f"{point.column.full_title}: {across} {titles.interval(point.across)}, {up} {titles.interval(point.up)}"
    return f"{text}, rejected" if point.column.decision == "rejected" else text


def _drawn(point: Point, x: Axis, y: Axis, kept: Column | None, across: str, up: str) -> Markup:
    at, height, kind = x(point.across["value"]), y(point.up["value"]), point.column.decision
    parts = [element("title", _title(point, across, up))]
    if len(_ends(point.across)) == 3:
        low, high = x(point.across["low"]), x(point.across["high"])
        parts.append(element("line", x1=low, x2=high, y1=height, y2=height, class_="interval"))
    if len(_ends(point.up)) == 3:
        low, high = y(point.up["low"]), y(point.up["high"])
        parts.append(element("line", x1=at, x2=at, y1=low, y2=high, class_="interval"))
    if kept is not None and point.column.unit == kept.unit:
        parts.append(element("circle", cx=at, cy=height, r=7.0, class_="halo"))
    if kind == "rejected":
        parts.append(element("path", d=f"M{at - 4:.1f} {height - 4:.1f}l8 8m0 -8l-8 8", class_="cross"))
    else:
        parts.append(element("circle", cx=at, cy=height, r=4.0, class_="dot"))
    parts.append(element("circle", cx=at, cy=height, r=10.0, class_="target"))
    return element("g", *parts, class_=f"mark {kind}")


def _labels(points: Sequence[Point], x: Axis, y: Axis, kept: Column | None) -> Markup:
    """Each name beside its point, hiding no other name or point, and if possible crossing no line."""
    marks = [(x(p.across["value"]), y(p.up["value"])) for p in points]
    taken = [(a - 5, b - 5, a + 5, b + 5) for a, b in marks]
    lines = [box for a, b in pairwise(marks) for box in _along(a, b)]
    kept_unit = None if kept is None else kept.unit
    order = sorted(range(len(points)), key=lambda i: points[i].column.unit != kept_unit)  # the kept model's comes first
    parts = []
    for i in order:
        (at, height), column = marks[i], points[i].column
        wide = len(column.short) * _CHARACTER
        places = [(at + right, height + down, anchor) for right, down, anchor in _LABEL_POSITIONS]
        boxes = [_box(place, wide) for place in places]
        free = [n for n, box in enumerate(boxes) if _inside(box) and not any(_overlap(box, t) for t in taken)]
        clear = [n for n in free if not any(_overlap(boxes[n], line) for line in lines)]
        if not free:
            continue
        best = (clear or free)[0]
        taken.append(boxes[best])
        right, down, anchor = places[best]
        classes = " ".join(["tick", *([anchor] if anchor else []), *(["bad"] if column.decision == "rejected" else [])])
        parts.append(element("text", column.short, x=right, y=down, class_=classes))
    return svg.join(parts)


def _box(place: tuple[float, float, str], wide: float) -> Box:
    start = place[0] - (wide if place[2] else 0.0)
    return start, place[1] - _LINE + 2, start + wide, place[1] + 2


def _along(a: tuple[float, float], b: tuple[float, float]) -> list[Box]:
    """A line as a chain of small boxes."""
    count = max(1, round(math.dist(a, b) / _STEP))
    places = [(a[0] + (b[0] - a[0]) * i / count, a[1] + (b[1] - a[1]) * i / count) for i in range(count + 1)]
    return [(px - 1, py - 1, px + 1, py + 1) for px, py in places]


def _inside(box: Box) -> bool:
    return box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - _BOTTOM


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

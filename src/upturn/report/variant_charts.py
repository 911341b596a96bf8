"""Figures of a study: a metric by variant, and by epoch with a line for each variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from upturn.report import svg, titles
from upturn.report.svg import BOTTOM, HEIGHT, RIGHT, TOP, WIDTH, Axis, element

_ROW, _TEXT = 24, 11.0  # height of a variant's row; offset of its name
_LETTER = 6.0  # width of a letter
_COLOURS = 10  # of the page; further variants reuse them
_LEFT = 44
_LABEL_STEP = 26.0  # pixels between two labels of the epoch axis


@dataclass(frozen=True)
class EpochSeries:
    """A variant's values by epoch: (epoch, value, low, high)."""

    name: str
    colour: int
    points: tuple[tuple[float, float, float | None, float | None], ...]


def by_variant(name: str, values: Mapping[str, Mapping[str, Any]], marks: Mapping[str, str]) -> Markup | None:
    """A row for each variant: its value with the interval; ``marks`` are "best", "worse", "alike" or nothing."""
    known = {v: m for v, m in values.items() if m.get("value") is not None}
    if not known:
        return None
    ends = [x for m in known.values() for x in (m["value"], m.get("low"), m.get("high")) if x is not None]
    widest = max(len(v) for v in values) * _LETTER
    left = min(widest + 12, WIDTH * 0.45)
    x = Axis(*svg.span(ends), left, WIDTH - RIGHT - 6)
    height = TOP + _ROW * len(values) + BOTTOM - 8
    body = []
    for tick in x.ticks(4):
        at = x(tick)
        body.append(element("line", x1=at, x2=at, y1=float(TOP), y2=height - BOTTOM + 8.0, class_="grid"))
        body.append(element("text", svg.tick_text(tick), x=at, y=height - BOTTOM + 24.0, class_="tick mid"))
    for place, variant in enumerate(values):
        y = TOP + _ROW * (place + 0.5)
        fits = int(left / _LETTER) - 1
        label = variant if len(variant) <= fits else variant[: fits - 1] + "…"
        body.append(element("text", titles.visible(label), x=left - 8, y=y + 4, class_="tick end"))
        if variant in known:
            body.append(_dot(variant, known[variant], x, y, marks.get(variant, "")))
    label = f"{name} by variant: " + "; ".join(f"{v}: {titles.interval(m)}" for v, m in known.items())
    return svg.figure(svg.join(body), label, height=int(height))


def _dot(variant: str, measured: Mapping[str, Any], x: Axis, y: float, mark: str) -> Markup:
    at = x(measured["value"])
    note = {"best": ", the best", "worse": ", worse than the best beyond chance"}.get(mark, "")
    parts = [element("title", f"{variant}: {titles.interval(measured)}{note}")]
    if measured.get("low") is not None and measured.get("high") is not None:
        parts.append(element("line", x1=x(measured["low"]), x2=x(measured["high"]), y1=y, y2=y, class_="interval"))
    if mark == "best":
        parts.append(element("circle", cx=at, cy=y, r=7.0, class_="halo"))
    parts.append(element("circle", cx=at, cy=y, r=4.0, class_="dot"))
    return element("g", *parts, class_="mark")


def by_epoch(name: str, series: Sequence[EpochSeries]) -> Markup | None:
    """Lines over checkpoints at equal distances on the axis, because epochs are usually chosen at growing distances."""
    drawn = [s for s in series if s.points]
    epochs = sorted({point[0] for s in drawn for point in s.points})
    if len(epochs) < 2:
        return None
    ends = [x for s in drawn for p in s.points for x in p[1:] if x is not None]
    y = Axis(*svg.span(ends), HEIGHT - BOTTOM, TOP)
    step = (WIDTH - _LEFT - RIGHT) / len(epochs)
    place = {epoch: _LEFT + step * (i + 0.5) for i, epoch in enumerate(epochs)}
    body = [svg.y_grid(y, _LEFT)]
    every = max(1, round(_LABEL_STEP / step + 0.49))
    for i, epoch in enumerate(epochs):
        if (len(epochs) - 1 - i) % every == 0:
            body.append(element("text", f"{epoch:g}", x=place[epoch], y=HEIGHT - BOTTOM + 18.0, class_="tick mid"))
    for s in drawn:
        points = [(place[epoch], y(value)) for epoch, value, _, _ in s.points]
        parts = [element("title", s.name), svg.path(points, "line")]
        for (at, _), (epoch, value, low, high) in zip(points, s.points, strict=True):
            title = element("title", f"{s.name}, epoch {epoch:g}: {titles.number(value)}")
            if low is not None and high is not None:
                parts.append(element("line", x1=at, x2=at, y1=y(low), y2=y(high), class_="interval"))
            parts.append(element("circle", title, cx=at, cy=y(value), r=3.2, class_="dot"))
        body.append(element("g", *parts, class_=f"s{s.colour % _COLOURS}"))
    return svg.figure(svg.join(body), f"{name} by epoch, a line for each variant")

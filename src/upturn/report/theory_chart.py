"""Chart of measurement and theory: dots with intervals, and the lines that the theory predicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from upturn.report import svg, titles
from upturn.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, element

_COLOURS = 10  # of the page; further series reuse them
_LABEL_STEP = 30.0  # pixels between two labels of the horizontal axis
_CROSS = 4.0


@dataclass(frozen=True)
class Dot:
    """A measured value at ``x``, with its 95% interval if it has one; ``wrong`` if it contradicts the theory."""

    x: float
    value: float
    low: float | None = None
    high: float | None = None
    wrong: bool = False


@dataclass(frozen=True)
class TheorySeries:
    """One colour: dots, and theory as (x, y) points of a line; a ``bound`` is dashed, dots may be ``joined``."""

    name: str
    colour: int
    dots: tuple[Dot, ...]
    theory: tuple[tuple[float, float], ...] = ()
    bound: bool = False
    joined: bool = True


def figure(
    title: str, series: Sequence[TheorySeries], *, log_x: bool = False, log_y: bool = False,
    names: Sequence[tuple[float, str]] = (),
) -> Markup | None:
    """All series in one frame; None without a dot. ``names`` label a horizontal axis without numbers.

    A logarithmic axis leaves out values that are not above zero.
    """
    drawn = [_positive(s, log_x, log_y) for s in series]
    dots = [dot for s in drawn for dot in s.dots]
    if not dots:
        return None
    reach = [v for d in dots for v in (d.value, d.low, d.high) if v is not None and (v > 0 or not log_y)]
    lines = [v for s in drawn for _, v in s.theory if not s.bound or _near(v, reach, log_y)]
    y = _axis([*reach, *lines], HEIGHT - BOTTOM, TOP, log_y)
    every = [d.x for d in dots] + [x for s in drawn for x, _ in s.theory]
    x = _across(every, log_x, bool(names))
    body = [svg.y_grid(y), _x_labels(x, sorted({d.x for d in dots}), names)]
    body += [_theory(s, x, y) for s in drawn]
    body += [_dots(s, x, y) for s in drawn]
    return svg.figure(svg.join(body), f"{title}: {'; '.join(s.name or 'all' for s in drawn)}")


def _positive(series: TheorySeries, log_x: bool, log_y: bool) -> TheorySeries:
    def keep(x: float, y: float) -> bool:
        return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)

    return TheorySeries(
        series.name, series.colour, tuple(d for d in series.dots if keep(d.x, d.value)),
        tuple(point for point in series.theory if keep(*point)), series.bound, series.joined,
    )


def _near(value: float, reach: Sequence[float], log: bool) -> bool:
    """Whether a bound is near enough to be drawn without flattening the measured values."""
    low, high = min(reach), max(reach)
    if log:
        return low / 100 <= value <= high * 100
    margin = 1.5 * max(high - low, abs(high) * 0.05, 1e-9)
    return low - margin <= value <= high + margin


def _axis(values: Sequence[float], start: float, end: float, log: bool) -> Axis:
    if not log:
        return Axis(*svg.span(values), start, end)
    low, high = min(values), max(values)
    margin = max((high / low) ** 0.06, 1.05)
    return Axis(low / margin, high * margin, start, end, True)


def _across(values: Sequence[float], log: bool, named: bool) -> Axis:
    low, high = min(values), max(values)
    if log:
        margin = max((high / low) ** 0.04, 1.02)
        return Axis(low / margin, high * margin, LEFT, WIDTH - RIGHT, True)
    margin = 0.5 if named else (high - low) * 0.03 or 0.5
    return Axis(low - margin, high + margin, LEFT, WIDTH - RIGHT)


def _x_labels(x: Axis, places: Sequence[float], names: Sequence[tuple[float, str]]) -> Markup:
    """``names`` if there are any; on a logarithmic axis the measured places, else round numbers."""
    marks = list(names) or [(v, svg.tick_text(v)) for v in (places if x.log else x.ticks(5))]
    parts: list[Markup] = []
    last = -1e9
    for value, text in marks:
        at = x(value)
        if at - last >= max(_LABEL_STEP, 6.0 * len(text) + 4):
            parts.append(element("text", text, x=at, y=HEIGHT - BOTTOM + 18.0, class_="tick mid"))
            last = at
    return svg.join(parts)


def _theory(series: TheorySeries, x: Axis, y: Axis) -> Markup:
    if len(series.theory) < 2:
        return Markup("")
    values = [value for _, value in series.theory]
    if max(values) < y.low or min(values) > y.high:
        return _out_of_frame(series, max(values) < y.low, min(values), max(values))
    places = [(x(a), y(b)) for a, b in series.theory]
    kept = [(a, min(max(b, TOP - 6.0), HEIGHT - BOTTOM + 6.0)) for a, b in places]
    title = element("title", f"{series.name}: {'bound' if series.bound else 'theory'}")
    class_ = f"s{series.colour % _COLOURS}"
    return element("g", title, svg.path(kept, "line bound" if series.bound else "line"), class_=class_)


def _out_of_frame(series: TheorySeries, below: bool, least: float, most: float) -> Markup:
    """A bound that is too far from the measured values is written instead of drawn, one line for each colour."""
    where = (HEIGHT - BOTTOM - 5.0 - 13.0 * series.colour) if below else TOP + 10.0 + 13.0 * series.colour
    ends = titles.number(most) if least == most else f"{titles.number(least)} to {titles.number(most)}"
    text = f"{series.name}, bound {'below' if below else 'above'}: {ends}"
    return element("text", text, x=WIDTH - RIGHT, y=where, class_="tick end")


def _dots(series: TheorySeries, x: Axis, y: Axis) -> Markup:
    parts: list[Markup] = []
    if series.joined and len(series.dots) > 1 and not (series.theory and not series.bound):
        parts.append(svg.path([(x(d.x), y(d.value)) for d in series.dots], "line thin"))
    for dot in series.dots:
        at, height = x(dot.x), y(dot.value)
        text = [titles.number(dot.value)]
        if dot.low is not None and dot.high is not None:
            text.append(f"[{titles.number(dot.low)}, {titles.number(dot.high)}]")
            low, high = (y(max(v, y.low) if y.log else v) for v in (dot.low, dot.high))
            parts.append(element("line", x1=at, x2=at, y1=low, y2=high, class_="interval"))
        title = element("title", f"{series.name} at {dot.x:g}: {' '.join(text)}{', outside the bound' * dot.wrong}")
        if dot.wrong:
            d = f"M{at - _CROSS:.1f} {height - _CROSS:.1f}l8 8m0 -8l-8 8"
            parts.append(element("path", title, d=d, class_="cross"))
        else:
            parts.append(element("circle", title, cx=at, cy=height, r=3.2, class_="dot"))
    return element("g", *parts, class_=f"s{series.colour % _COLOURS}")

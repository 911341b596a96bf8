"""Small SVG figures with colours from the style sheet, so that they follow a light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 340, 200  # of a card's figure, about in pixels
_MOST_POWERS = 6  # of ten along a logarithmic axis
_FINER = 0.75  # of the requested distance of ticks: slightly more ticks are better than too few
LEFT, RIGHT, TOP, BOTTOM = 44, 14, 10, 34


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An element, everything escaped; ``class_`` is class, an underscore a hyphen, numbers to a tenth."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.1f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    body = "".join(str(escape(child)) for child in children)
    return Markup("".join(parts) + (f">{body}</{name}>" if children else "/>"))


def join(parts: Sequence[Markup]) -> Markup:
    return Markup("".join(parts))


def figure(body: Markup, label: str, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    return element("svg", body, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


@dataclass(frozen=True)
class Axis:
    """Maps data to pixels; ``log`` for values that span orders of magnitude."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            low, high, value = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high = self.low, self.high
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high, count)


def span(values: Sequence[float], margin: float = 0.08) -> tuple[float, float]:
    """A range that holds all values with a margin; shares stay within 0 and 1."""
    low, high = min(values), max(values)
    pad = (high - low) * margin or abs(high) * 0.1 or 0.5
    bottom = 0.0 if low >= 0 > low - pad else low - pad
    return bottom, 1.0 if high <= 1 < high + pad and low >= 0 else high + pad


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers between two ends."""
    rough = (high - low) / max(count, 1)
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= rough * _FINER)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    full = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    inside = [t for t in full if low <= t <= high]
    tens = [t for t in inside if f"{t:e}".startswith("1")]
    return tens[:: -(-len(tens) // _MOST_POWERS)] if len(tens) >= 3 else inside


def tick_text(value: float) -> str:
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
    if size >= 10_000:
        return f"{value / 1000:g}k".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def y_grid(axis: Axis, left: float = LEFT, right: float = WIDTH - RIGHT) -> Markup:
    """Horizontal grid lines with their numbers."""
    parts = []
    for tick in axis.ticks():
        y = axis(tick)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", tick_text(tick), x=left - 6, y=y + 3.5, class_="tick end"))
    return join(parts)


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    steps = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    return element("path", d=steps, class_=class_)

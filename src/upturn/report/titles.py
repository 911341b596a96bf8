"""Numbers and terms for readers: title and meaning of a metric, and how a number is rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upturn.config import components
from upturn.protocols import Better, Metric

_PLAIN = 3  # significant digits where no interval says how many there are
_MOST_DECIMALS = 6


@dataclass(frozen=True)
class Term:
    """Title and meaning of a metric. ``reference``: key of a comparison value in its details, and its description."""

    title: str
    meaning: str
    better: Better = "neither"
    reference: tuple[str, str] | None = None


def term(name: str, spec: Mapping[str, Any] | None = None) -> Term:
    """What a metric of metrics.json declares; ``spec`` is its part of the recipe, which may have renamed it.

    ``a/b`` is the metric b of the evaluation a. A metric that is not installed here keeps its name and has no meaning.
    """
    group, _, last = name.rpartition("/")
    component = str(spec["name"]) if spec is not None else last
    metric: type[Metric] | None = components.installed("metric", component)
    if metric is None:
        return Term(name, "")
    title, meaning, better = metric.described(spec or {})
    if last != component or not title:
        title = name
    elif group:
        title = f"{title} ({group})"
    return Term(title, meaning, better, metric.reference)


def decimals(spread: float) -> int:
    """Digits after the point that leave two significant digits of ``spread``."""
    if not math.isfinite(spread) or spread <= 0:
        return _PLAIN
    return min(max(1 - math.floor(math.log10(spread)), 0), _MOST_DECIMALS)


def number(value: float | None, places: int | None = None) -> str:
    """Rounded, with a minus sign and thin spaces between thousands; a dash if unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    if places is None:
        size = abs(value)
        if size and (size < 1e-4 or size >= 1e7):
            return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")
        places = max(_PLAIN - 1 - math.floor(math.log10(size)), 0) if size else 0
    text = f"{value:,.{places}f}".replace(",", "\u202f").replace("-", "−")
    return text.removeprefix("−") if text.strip("−0.") == "" else text


def places_of(measured: Mapping[str, Any]) -> int | None:
    """Number of decimals of a measurement, by the half width of its interval."""
    value, low, high = (measured.get(part) for part in ("value", "low", "high"))
    if value is None or low is None or high is None or high <= low:
        return None
    return decimals((high - low) / 2)


def interval(measured: Mapping[str, Any] | None) -> str:
    """``0.93 [0.91, 0.95]``; a dash if it was not measured."""
    if measured is None or measured.get("value") is None:
        return "–"
    places = places_of(measured)
    value = number(measured["value"], places)
    if measured.get("low") is None or measured.get("high") is None:
        return value
    return f"{value} [{number(measured['low'], places)}, {number(measured['high'], places)}]"


def signed(value: float, places: int) -> str:
    text = number(value, places)
    return text if text.startswith("−") or value == 0 else f"+{text}"


def share(value: float | None) -> str:
    """As a percentage without decimals, except near the ends."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}%" if 0 < value < 0.01 or 0.99 < value < 1 else f"{100 * value:.0f}%"


def duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def usd(amount: float) -> str:
    return f"${amount:.2f}" if amount >= 0.1 else f"${amount:.4f}"


def listed(items: list[str]) -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def plural(count: int, word: str) -> str:
    return f"{number(count, 0)} {word}{'' if count == 1 else 's'}"


def visible(text: str) -> str:
    """Control characters as visible symbols (U+2400 …): no text of a model is invisible."""
    return text.translate(_CONTROLS)


_CONTROLS: dict[int, int] = {
    **{code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)}, 0x7F: 0x2421,
    **dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD),  # marks that change the text direction
}

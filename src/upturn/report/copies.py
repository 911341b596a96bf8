"""The sentence that nobody should miss where a model copies what it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from upturn.config import components
from upturn.report import titles


def warning(metrics: Mapping[str, Mapping[str, Any]], specs: Mapping[str, str], what: str) -> str | None:
    """Of one model's measurements; ``specs`` are the components of their names, ``what`` begins the sentence."""
    for name in _named(specs):
        found = metrics.get(name) or {}
        details = found.get("details") or {}
        if details.get("flagged"):
            return (
                f"{what} copies training data: {titles.interval(found)} of its samples lie nearer to one than unseen "
                f"real data nearly ever does (by chance {titles.number(details['baseline'])}); "
                f"{titles.plural(details['copied'], 'training sample')} are copied."
            )
    return None


def _named(specs: Mapping[str, str]) -> Iterable[str]:
    found = ((name, components.installed("metric", component)) for name, component in specs.items())
    return (name for name, metric in found if metric is not None and metric.flags_copies)

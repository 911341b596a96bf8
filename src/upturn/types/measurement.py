"""The value of a metric with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from upturn.types.samples import Array


@dataclass(frozen=True)
class Measurement:
    """A metric's value with its interval.

    ``values`` (M,) are per evaluation sample where the metric is a mean over them: the gate pairs them.
    An undefined metric has ``value = nan`` and the reason in ``note``.
    """

    value: float
    low: float
    high: float
    n: int
    values: Array | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON-ready: class shares, nearest pairs, …

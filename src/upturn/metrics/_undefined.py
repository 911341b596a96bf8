"""An undefined metric becomes a NaN measurement with a note instead of an exception."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

from upturn.protocols import Evidence
from upturn.types import Measurement

M = TypeVar("M", bound=Any)


class UndefinedMetric(Exception):
    """Raised inside a metric that is undefined on these samples; the text becomes the measurement's note."""


def defined_or_note(measure: Callable[[M, Evidence], Measurement]) -> Callable[[M, Evidence], Measurement]:
    """``measure`` with :class:`UndefinedMetric`, empty or wrong samples turned into a NaN measurement with a note."""

    @functools.wraps(measure)
    def guarded(self: M, evidence: Evidence) -> Measurement:
        n, kind = len(evidence.samples), evidence.samples.kind
        if kind not in self.kinds:
            return _undefined(n, f"the samples are {kind}; this metric measures {' and '.join(sorted(self.kinds))}")
        if n == 0:
            return _undefined(0, "there are no samples")
        try:
            return measure(self, evidence)
        except UndefinedMetric as reason:
            return _undefined(n, str(reason))

    return guarded


def number(value: float) -> float | None:
    """The value for details, which become JSON; None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def _undefined(n: int, note: str) -> Measurement:
    return Measurement(math.nan, math.nan, math.nan, n, note=note)

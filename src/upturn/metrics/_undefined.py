"""How a metric says that it cannot speak: NaN with a note, never an exception and never a number that means nothing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

from upturn.protocols import Evidence
from upturn.types import Measurement

M = TypeVar("M", bound=Any)


class CannotSpeak(Exception):
    """Raised inside a metric; the text becomes the measurement's note."""


def speaks_or_says_why(measure: Callable[[M, Evidence], Measurement]) -> Callable[[M, Evidence], Measurement]:
    """``measure`` with :class:`CannotSpeak` turned into a NaN measurement, and kinds that do not fit likewise."""

    @functools.wraps(measure)
    def guarded(self: M, evidence: Evidence) -> Measurement:
        n, kind = len(evidence.samples), evidence.samples.kind
        if kind not in self.kinds:
            return _silent(n, f"the samples are {kind}; this metric measures {' and '.join(sorted(self.kinds))}")
        if n == 0:
            return _silent(0, "there are no samples")
        try:
            return measure(self, evidence)
        except CannotSpeak as reason:
            return _silent(n, str(reason))

    return guarded


def number(value: float) -> float | None:
    """For details, which become JSON: None where there is no number."""
    return float(value) if math.isfinite(value) else None


def _silent(n: int, note: str) -> Measurement:
    return Measurement(math.nan, math.nan, math.nan, n, note=note)

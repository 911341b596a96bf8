"""Is one measurement better than another: paired by sample where both have values a sample, else by intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from upturn.statistics.paired import paired_test
from upturn.types import Array, Measurement

_SURE = 20  # clusters from which equal sums are so rare that the two one-sided chances add up to 1
_Z = 1.959963984540054  # of a 95% interval: half its width over this is a standard error


@dataclass(frozen=True)
class Contrast:
    """One minus the other.

    value      difference;  low, high its 95% interval
    p          one-sided: how often so large a difference arises where the first is no better
    two_sided  the same for a difference to either side
    how        "paired": the same prompts and noise, by sample;  "intervals": two measurements taken as independent,
               which errs towards "not apart" where they share prompts and noise;  "none": no interval, or no change
    """

    value: float
    low: float
    high: float
    p: float
    two_sided: float
    how: Literal["paired", "intervals", "none"]


def contrast(
    a: Measurement, b: Measurement, key: int, *, better: str = "higher", clusters: Array | None = None,
    paired: bool = True, resamples: int = 9999,
) -> Contrast:
    """``a`` less ``b``; ``p`` is small where ``a`` is better in the sense of ``better`` ("higher" or "lower").

    ``paired``: whether row i of both has one prompt and one noise (it does for models of one evaluation);
    ``clusters`` (n,) names the prompt of each row, and is left out where its length is not that of the values.
    """
    sign = -1.0 if better == "lower" else 1.0
    if paired and a.values is not None and b.values is not None and len(a.values) == len(b.values) > 0:
        groups = clusters if clusters is not None and len(clusters) == len(a.values) else None
        found = paired_test(sign * (a.values - b.values), key, groups, resamples=resamples)
        if not math.isnan(found.difference):
            other = 1 - found.p + found.smallest
            if found.clusters < _SURE:
                other = paired_test(sign * (b.values - a.values), key, groups, resamples=resamples).p
            low, high = sorted((sign * found.low, sign * found.high))
            both = min(1.0, 2 * min(found.p, other))
            return Contrast(sign * found.difference, low, high, found.p, both, "paired")
    return _apart(a, b, sign)


def _apart(a: Measurement, b: Measurement, sign: float) -> Contrast:
    """Of independent normal estimates, each error read off its interval."""
    value = a.value - b.value
    error = math.hypot((a.high - a.low) / 2, (b.high - b.low) / 2) / _Z
    if not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        same = value == 0
        return Contrast(value, value if same else math.nan, value if same else math.nan, 1.0, 1.0, "none")
    z = sign * value / error
    return Contrast(
        value, value - _Z * error, value + _Z * error, 0.5 * math.erfc(z / math.sqrt(2)),
        math.erfc(abs(z) / math.sqrt(2)), "intervals",
    )

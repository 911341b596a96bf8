"""λ = synthetic : real, as written in a recipe, as a number and as numbers of rows."""

from __future__ import annotations

import math
from typing import Literal

from upturn.types import REAL, SYNTHETIC

Ratio = float | Literal["only"] | None


def as_number(given: Ratio) -> float | None:
    """λ as a number: "only" is infinity, None stays None (every row weighs the same)."""
    return math.inf if given == "only" else given


def real_and_synthetic(size: int, share: float) -> dict[str, int]:
    """``size`` rows as real and synthetic ones in the ratio 1 : λ, at least one of each where λ requires both."""
    real = round(size / (1.0 + share)) if math.isfinite(share) else 0
    if 0.0 < share < math.inf:
        real = min(max(real, 1), max(size - 1, 1))
    return {REAL: real, SYNTHETIC: max(size - real, 1 if share > 0.0 else 0)}

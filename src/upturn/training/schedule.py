"""Learning-rate schedules, closed form in the step."""

from __future__ import annotations

import math

from upturn.config.schema import Training


def learning_rate(spec: Training, step: int, total: int) -> float:
    """Of step ``step`` (from 0): linear warm-up, then constant, a half cosine or a line to zero."""
    warm = round(spec.warmup * total)
    if step < warm:
        return spec.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    if spec.schedule == "cosine":
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return spec.learning_rate * (1 - done if spec.schedule == "linear" else 1.0)

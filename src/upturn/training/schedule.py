"""The learning rate of a step, closed form in the step."""

from __future__ import annotations

import json
from functools import cache

from upturn.config import components
from upturn.config.schema import Training
from upturn.protocols import Schedule


def learning_rate(spec: Training, step: int, total: int) -> float:
    """Of step ``step`` (from 0): linear warm-up, then the schedule of the recipe."""
    warm = round(spec.warmup * total)
    if step < warm:
        return spec.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(1, total - warm)
    return spec.learning_rate * _schedule(json.dumps(spec.schedule)).factor(done)


@cache  # it is looked up at every step
def _schedule(spec: str) -> Schedule:
    found: Schedule = components.make("schedule", json.loads(spec), "schedule")
    return found

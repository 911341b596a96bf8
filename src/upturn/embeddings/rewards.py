"""Rewards of a model in chunks that bound memory."""

from __future__ import annotations

import numpy as np

from upturn.embeddings.inference import forwarded
from upturn.protocols import Trainable
from upturn.types import Array, Samples


def rewarded(model: Trainable, name: str, samples: Samples) -> Array:
    """(N,) float64, NaN where it is not finite. UserError where the model gives no rewards."""
    if len(samples) == 0:
        return np.zeros(0)
    found = forwarded(model, name, samples, "rewards").astype(np.float64)
    return np.where(np.isfinite(found), found, np.nan)

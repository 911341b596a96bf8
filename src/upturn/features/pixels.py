"""Pixels of small images as features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Features
from upturn.types import Array, Samples


@dataclass
class Pixels(Features):
    """The pixels themselves, in [0, 1]: for small images, where a distance between pixels is meaningful."""

    def embed(self, samples: Samples, tools: object) -> Array:
        """(N, H * W * C) float32 of (N, H, W, C) uint8. UserError where the samples are not images."""
        if samples.kind != "image":
            raise UserError(
                f"'pixels' reads images, and these samples are {samples.kind}", where="features",
                fix="Use 'points' for points, 'encoder' or 'classifier' for text.",
            )
        width = math.prod(samples.content.shape[1:])
        return samples.content.reshape(len(samples), width).astype(np.float32) / np.float32(255)

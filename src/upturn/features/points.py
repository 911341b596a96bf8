"""Points as features, unchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Features
from upturn.types import Array, Samples


@dataclass
class Points(Features):
    """Points, unchanged: distances are those of the data."""

    def embed(self, samples: Samples, tools: object) -> Array:
        """(N, d) float32. UserError where the samples are not points."""
        if samples.kind != "points":
            raise UserError(
                f"'points' reads points, and these samples are {samples.kind}", where="features",
                fix="Use 'pixels' for images, 'encoder' or 'classifier' for text.",
            )
        return samples.content.astype(np.float32)

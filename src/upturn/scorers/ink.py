"""How bright a picture is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.errors import UserError
from upturn.types import Samples, Scores


@dataclass
class Ink:
    """How bright a picture is on average, in [0, 1]: a taste that needs no model (on dark paper, ink is bright)."""

    scale: float = 1.0

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and the scale, in order."""
        return min(0.0, self.scale), max(0.0, self.scale)

    def score(self, samples: Samples, tools: object) -> Scores:
        """(N,) mean of all channels times ``scale``. UserError where the samples are not images."""
        if samples.kind != "image":
            raise UserError(f"'ink' judges images, and these samples are {samples.kind}", where="scorer 'ink'",
                            fix="Use 'length' for text, 'closeness' for points.")
        return Scores("ink", self.scale * samples.content.mean(axis=(1, 2, 3), dtype=np.float64) / 255)

"""Mean brightness of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Scorer
from upturn.types import Samples, Scores, by_size


@dataclass
class Ink(Scorer):
    """Mean brightness of an image, in [0, 1]: a reward that needs no model (in white on black, ink is bright)."""

    scale: float = 1.0

    several_sizes: ClassVar[bool] = True

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and the scale, in order."""
        return min(0.0, self.scale), max(0.0, self.scale)

    def score(self, samples: Samples, tools: object) -> Scores:
        """(N,) mean of all channels times ``scale``. UserError where the samples are not images."""
        if samples.kind != "image":
            raise UserError(f"'ink' scores images, and these samples are {samples.kind}", where="scorer 'ink'",
                            fix="Use 'length' for text, 'closeness' for points.")
        means = np.zeros(len(samples))
        for rows, batch in by_size(samples.content):
            means[rows] = batch.mean(axis=(1, 2, 3), dtype=np.float64)
        return Scores("ink", self.scale * means / 255)

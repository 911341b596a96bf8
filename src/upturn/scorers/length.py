"""Length of a text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Scorer
from upturn.types import Samples, Scores


@dataclass
class Length(Scorer):
    """Length of a text in thousands of characters: a bias of many judges, used in controlled tests.

    ``scale`` -1 prefers short ones.
    """

    scale: float = 1.0

    def score(self, samples: Samples, tools: object) -> Scores:
        """(N,) characters / 1,000 times ``scale``. UserError where the samples are not text."""
        if samples.kind != "text":
            raise UserError(f"'length' scores text, and these samples are {samples.kind}", where="scorer 'length'",
                            fix="Use 'ink' for images, 'closeness' for points.")
        return Scores("length", self.scale * np.array([len(text) for text in samples.content], dtype=np.float64) / 1000)

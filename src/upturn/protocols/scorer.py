"""Base class of scorers: a number for each sample."""

from __future__ import annotations

import math

from upturn.protocols.component import Component
from upturn.protocols.component_tools import Tools
from upturn.types import Samples, Scores


class Scorer(Component):
    """Base class of scorers: a number for each sample, NaN for unscored, with a reason in words."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest score that it can give, infinite where there is none; certificates need it."""
        return (-math.inf, math.inf)

    @property
    def verifies(self) -> bool:
        """Whether its scores are verdicts: 1 right, 0 wrong, and nothing between."""
        return False

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) float64, NaN where a sample is unscored."""
        raise NotImplementedError

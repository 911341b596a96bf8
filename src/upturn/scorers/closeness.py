"""Gaussian reward by the distance of a point to a preferred place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Scorer
from upturn.types import Array, Samples, Scores, objects


@dataclass
class Closeness(Scorer):
    """Closeness of a point to a preferred place: ``height * exp(-d^2 / (2 width^2))``, d the Euclidean distance.

    Bounded by r* = ``height``, as the theory of curation requires of a reward. A point that is not finite is unscored.

    to      the place, d numbers
    width   at this distance the reward is exp(-1/2) = 61% of its height, in units of the data
    height  the greatest reward; with 'choice' it is the inverse temperature
    """

    to: list[float] = field(default_factory=lambda: [0.0, 0.0])
    width: float = 1.0
    height: float = 1.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"width must be above 0, not {self.width}")
        if not self.to or not np.isfinite(self.to).all():
            raise ValueError(f"'to' must be finite numbers, one a dimension, not {self.to}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and the height, in order."""
        return min(0.0, self.height), max(0.0, self.height)

    def score(self, samples: Samples, tools: object) -> Scores:
        """(N,) between 0 and ``height``. UserError where the samples are not points of as many dimensions."""
        if samples.kind != "points" or samples.content.shape[1:] != (len(self.to),):
            found = f"points of {samples.content.shape[1]} dimensions" if samples.kind == "points" else samples.kind
            raise UserError(
                f"'to' has {len(self.to)} dimensions, and these samples are {found}", where="scorer 'closeness'",
                fix="Give 'to' one number for each dimension of the data.",
            )
        content = samples.content.astype(np.float64)
        finite: Array = np.all(np.isfinite(content), axis=1)
        squared = ((content - self.to) ** 2).sum(axis=1)
        squared[~finite] = np.nan
        words = [f"at distance {d:.3g}" if d == d else "unscored: not a finite point"
                 for d in np.sqrt(squared).tolist()]
        return Scores("closeness", self.height * np.exp(-squared / (2 * self.width**2)), objects(words))

"""Share of each class among the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._classified import classified
from upturn.metrics._undefined import defined_or_note, number
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import share
from upturn.types import Measurement


@dataclass(frozen=True)
class ClassShares(Metric):
    """Share of each class by the classifier ``model``; the value is the largest share, the details hold all.

    The interval of each share is Wilson's. That of the largest is for the class that is the largest here, and does not
    allow for having been chosen as such.
    """

    model: str = "classifier"  # a name under the recipe's models:

    title: ClassVar[str] = "Largest class"
    meaning: ClassVar[str] = "Share of the most frequent class among the samples: 1 means that only one class is left."
    counts_classes: ClassVar[bool] = True
    better: ClassVar[Better] = "neither"

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        found, classes = classified(evidence, self.model)
        groups = evidence.samples.group
        shares = {}
        for position, name in enumerate(classes):
            mine = (found == position).astype(np.float64)
            low, high = share(mine, clusters=groups)
            shares[name] = (float(mine.mean()), low, high)
        largest = max(shares, key=lambda name: shares[name][0])
        details = {
            "shares": {
                name: {"value": value, "low": number(low), "high": number(high)}
                for name, (value, low, high) in shares.items()
            },
            "largest": largest,
        }
        return Measurement(*shares[largest], len(found), details=details)

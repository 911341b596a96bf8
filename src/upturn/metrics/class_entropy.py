"""How evenly the samples fall into the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._classified import classified
from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import subsample_masks
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class ClassEntropy(Metric):
    """Entropy of the class shares by the classifier ``model``, over log C: 1 is uniform, 0 is one class.

    Miller–Madow: (classes seen - 1) / 2n nats are added, the first-order bias of the plug-in estimate (Miller 1955), so
    that runs of different n and theory can be compared; cut at 1. The interval is by subsampling, because a bootstrap
    lowers every entropy once more.
    """

    model: str = "classifier"  # a name under the recipe's models:

    title: ClassVar[str] = "Class evenness"
    meaning: ClassVar[str] = "How evenly samples are distributed over the classes: 1 is even, 0 is one class."
    better: ClassVar[Better] = "higher"

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        found, classes = classified(evidence, self.model)
        if len(classes) < 2:
            raise UndefinedMetric(f"the model '{self.model}' knows {len(classes)} class; entropy needs 2")
        each = np.eye(len(classes))[found]

        def evenness(masks: Array) -> Array:
            return relative_entropy(masks.astype(np.float64) @ each)

        value = float(evenness(np.ones((1, len(found)), dtype=bool))[0])
        low, high = subsample_masks(
            evenness, len(found), metric_key(evidence, "class_entropy"), clusters=evidence.samples.group
        )
        details = {"classes": len(classes), "seen": int((each.sum(axis=0) > 0).sum())}
        return Measurement(min(value, 1.0), max(low, 0.0), min(high, 1.0), len(found), details=details)


def relative_entropy(counts: Array) -> Array:
    """(R,) Miller–Madow entropies of (R, C) counts over log C; not cut."""
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / total
    terms = shares * np.log(np.where(shares > 0, shares, 1.0))
    correction = ((counts > 0).sum(axis=1) - 1) / (2 * total[:, 0])
    return np.asarray((correction - terms.sum(axis=1)) / np.log(counts.shape[1]))

"""Share of samples in the class that their prompt requests, all classes weighted equally."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn.metrics._classified import classified
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import share
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class BalancedAccuracy(Metric):
    """Mean over the requested classes of the share that the classifier ``model`` puts into that class.

    Chance is 1 / classes, whatever their sizes. Each sample's value is right (0 or 1) times N / (classes * its class's
    size), so that the mean of values is the balanced accuracy, and the gate's pairs test it.

    The interval joins Wilson's intervals of the classes (candidates of a prompt together): the lower end lies
    sqrt(sum (p_c - l_c)^2) / C below, the upper likewise (Zou & Donner 2008, "MOVER"): a bootstrap within classes has
    no width where a class is all right or all wrong. Samples whose prompt has no class are left out and counted.
    """

    model: str = "classifier"  # a name under the recipe's models:, not the one that gives the reward

    title: ClassVar[str] = "Balanced accuracy"
    meaning: ClassVar[str] = (
        "Share of samples that a classifier assigns to the class that the prompt requests, every class counted "
        "equally."
    )
    better: ClassVar[Better] = "higher"

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        labels = evidence.samples.labels
        named = labels >= 0
        if not named.any():
            raise UndefinedMetric("no prompt has a class (the model is unconditional)")
        found, classes = classified(evidence, self.model)
        if labels.max() >= len(classes):
            raise UndefinedMetric(
                f"a prompt requests class {labels.max()}, but '{self.model}' has {len(classes)} classes"
            )
        requested = np.unique(labels[named])
        value, low, high = balanced(found, labels, evidence.samples.group)
        sizes = np.bincount(labels[named], minlength=len(classes))
        n = int(named.sum())
        weight = n / (len(requested) * np.maximum(sizes, 1))
        values = np.where(named, (found == labels) * weight[np.maximum(labels, 0)], np.nan)
        confusion = {
            classes[c]: {classes[d]: int(count) for d, count in enumerate(np.bincount(found[labels == c])) if count}
            for c in requested
        }
        details: dict[str, Any] = {
            "chance": 1 / len(classes), "classes": len(requested), "confusion": confusion,
            "by_class": {classes[c]: float((found[labels == c] == c).mean()) for c in requested},
        }
        notes = [f"{len(labels) - n} of {len(labels)} samples have a prompt without a class"] if n < len(labels) else []
        if len(requested) < len(classes):
            notes.append(f"{len(classes) - len(requested)} of {len(classes)} classes are never requested")
        return Measurement(value, low, high, n, values, "; ".join(notes), details)


def balanced(found: Array, labels: Array, groups: Array) -> tuple[float, float, float]:
    """The mean over classes of (N,) ``found == labels``, and the ends of its 95% interval; labels below 0 are none."""
    parts = []
    for c in np.unique(labels[labels >= 0]):
        rows = labels == c
        right = (found[rows] == c).astype(np.float64)
        low, high = share(right, clusters=groups[rows])
        p = float(right.mean())
        parts.append((p, low, high) if math.isfinite(low) else (p, 0.0, 1.0))  # one prompt: no variance known
    shares, lows, highs = (np.array(column) for column in zip(*parts, strict=True))
    value, count = float(shares.mean()), len(shares)
    below, above = math.sqrt(float(((shares - lows) ** 2).sum())), math.sqrt(float(((highs - shares) ** 2).sum()))
    return value, max(0.0, value - below / count), min(1.0, value + above / count)

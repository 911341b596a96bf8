"""Share of samples that are not noisy copies of training samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.statistics.neighbours import nearest, radii
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class Authenticity(Metric):
    """Share of samples farther from their nearest training sample than that one is from its own nearest other.

    Alaa et al., ICML 2022 ("How faithful is your synthetic data?"): a sample that lies nearer is called
    unauthentic. New real data is not at 1 but near 1/2 (which side is nearer is a toss, where data is dense), so
    ``held_out`` in the details is its share, and a share well below it means copying. Samples far from everything
    are authentic, too: the metric does not measure quality. ``memorisation`` uses a threshold that does not depend on
    the position.
    """

    title: ClassVar[str] = "Authenticity"
    meaning: ClassVar[str] = "Share of samples that are not noisy copies of training samples: higher is better."
    reference: ClassVar[tuple[str, str] | None] = ("held_out", "unseen real samples")
    better: ClassVar[Better] = "higher"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        train = real_features(evidence.tools, "train", 2)
        values = authentic(sample_features(evidence), train)
        low, high = bootstrap_mean(values, metric_key(evidence, "authenticity"), clusters=evidence.samples.group)
        details: dict[str, float | int] = {"train": len(train)}
        if len(evidence.tools.held_out):
            details["held_out"] = float(authentic(real_features(evidence.tools, "held_out", 1), train).mean())
        return Measurement(float(values.mean()), low, high, len(values), values, details=details)


def authentic(features: Array, train: Array) -> Array:
    """(N,) 1.0 where a row is farther from its nearest training row than that row from the others."""
    distances, rows = nearest(features, train)
    return np.asarray(distances > np.sqrt(radii(train, 1))[rows], dtype=np.float64)

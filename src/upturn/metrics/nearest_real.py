"""Distance of samples to their nearest training sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._nearest_pairs import pairs
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.statistics.neighbours import nearest
from upturn.types import Measurement


@dataclass(frozen=True)
class NearestReal(Metric):
    """Mean feature distance of a sample to its nearest training sample; the closest pairs are in the details.

    Neither direction is better: near 0 are copies, far out are unrealistic samples. ``held_out`` in the details is
    the value for real samples that were not trained on.
    """

    pairs: int = 10  # how many of the closest pairs are listed, which the report displays side by side

    title: ClassVar[str] = "Distance to the nearest real sample"
    meaning: ClassVar[str] = (
        "Mean distance to the closest training sample: near 0 are copies, far from the reference are unrealistic "
        "samples."
    )
    reference: ClassVar[tuple[str, str] | None] = ("held_out", "unseen real samples")
    better: ClassVar[Better] = "neither"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        train = real_features(evidence.tools, "train", 1)
        values, rows = nearest(sample_features(evidence), train)
        low, high = bootstrap_mean(values, metric_key(evidence, "nearest_real"), clusters=evidence.samples.group)
        closest = values.argsort(kind="stable")[: self.pairs]
        details: dict[str, object] = {"pairs": pairs(evidence.samples, evidence.tools.train, rows, values, closest)}
        if len(evidence.tools.held_out):
            details["held_out"] = float(nearest(real_features(evidence.tools, "held_out", 1), train)[0].mean())
        return Measurement(float(values.mean()), low, high, len(values), values, details=details)

"""Share of samples that lie in the neighbourhood of real ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._by_neighbours import ByNeighbours
from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Evidence
from upturn.statistics.intervals import bootstrap_mean
from upturn.statistics.neighbour_balls import balls_around_real
from upturn.types import Measurement


@dataclass(frozen=True)
class Precision(ByNeighbours):
    """Share of samples within the k-th neighbour radius of some real sample (quality).

    Kynkäänniemi et al., NeurIPS 2019, "Improved precision and recall", equation 1, on features (N, D). Real samples
    are held-out ones unless ``against`` says train, which would reward copies.
    """

    title: ClassVar[str] = "Precision"
    meaning: ClassVar[str] = (
        "Share of samples that lie where real samples lie: high values mean that samples look real."
    )

    k: int = 3  # the paper's, section 3

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        real = real_features(evidence.tools, self.against, self.k + 1)
        generated = sample_features(evidence)
        values = (balls_around_real(real, generated, self.k)[0] > 0).astype(np.float64)
        low, high = bootstrap_mean(values, metric_key(evidence, "precision"), clusters=evidence.samples.group)
        return Measurement(float(values.mean()), low, high, len(generated), values, details={"real": len(real)})

"""How many neighbourhoods of real samples a sample lies in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.metrics._by_neighbours import ByNeighbours
from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Evidence
from upturn.statistics.intervals import bootstrap_mean
from upturn.statistics.neighbour_balls import balls_around_real
from upturn.types import Measurement


@dataclass(frozen=True)
class Density(ByNeighbours):
    """Mean number of real k-neighbourhoods a sample lies in, over k: near 1 for real data, above 1 where samples crowd.

    Naeem et al., ICML 2020, "Reliable fidelity and diversity metrics", equation 3. Unlike precision, one outlying real
    sample cannot carry it.
    """

    title: ClassVar[str] = "Density"
    meaning: ClassVar[str] = (
        "Mean number of real neighbourhoods that a sample lies in, scaled so that real samples give 1."
    )

    k: int = 5  # the paper's, section 4.2

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        real = real_features(evidence.tools, self.against, self.k + 1)
        generated = sample_features(evidence)
        values = balls_around_real(real, generated, self.k)[0] / self.k
        low, high = bootstrap_mean(values, metric_key(evidence, "density"), clusters=evidence.samples.group)
        return Measurement(float(values.mean()), low, high, len(generated), values, details={"real": len(real)})

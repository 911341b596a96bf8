"""Share of real samples that have a sample in their neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._by_neighbours import ByNeighbours
from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Evidence
from upturn.statistics.intervals import subsample_masks
from upturn.statistics.neighbour_balls import balls_around_real
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class Coverage(ByNeighbours):
    """Share of real samples whose k-neighbourhood holds at least one sample (diversity).

    Naeem et al., ICML 2020, equation 4. It rises with the number of samples: ``if_equal`` in the details is what
    samples from the real distribution would give at this n. The interval (subsampling) is over the samples; the real
    ones are the same in every round.
    """

    title: ClassVar[str] = "Coverage"
    meaning: ClassVar[str] = (
        "Share of real held-out samples with a generated one nearby: where it falls, variety is lost."
    )
    reference: ClassVar[tuple[str, str] | None] = ("if_equal", "samples from the real distribution")

    k: int = 5  # the paper's, section 4.2

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        real = real_features(evidence.tools, self.against, self.k + 1)
        generated = sample_features(evidence)
        _, held, around = balls_around_real(real, generated, self.k)

        def covered(masks: Array) -> Array:
            shares = np.empty(len(masks))
            for row, mask in enumerate(masks):
                still = np.zeros(len(real), dtype=bool)
                still[around.real[mask[around.synthetic]]] = True
                shares[row] = still.mean()
            return shares

        value = float(held.mean())
        low, high = subsample_masks(
            covered, len(generated), metric_key(evidence, "coverage"), clusters=evidence.samples.group
        )
        details = {"real": len(real), "if_equal": expected_coverage(len(real), len(generated), self.k)}
        return Measurement(value, max(low, 0.0), min(high, 1.0), len(generated), details=details)


def expected_coverage(real: int, generated: int, k: int) -> float:
    """Coverage where both are from one distribution, whatever it is (Naeem et al., section 4.1, for unequal sizes).

    A neighbourhood is empty if the k nearest of the other ``real - 1`` and the ``generated`` samples are all real.
    """
    ranks = np.arange(k)
    return float(1 - np.prod((real - 1 - ranks) / (real - 1 + generated - ranks)))

"""Share of real samples that lie in the neighbourhood of samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._by_neighbours import ByNeighbours
from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Evidence
from upturn.statistics.intervals import subsample_masks
from upturn.statistics.neighbour_balls import balls_around_synthetic, reach
from upturn.statistics.neighbours import neighbours
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class Recall(ByNeighbours):
    """Share of real samples within the k-th neighbour radius of some sample (diversity).

    Kynkäänniemi et al., NeurIPS 2019, equation 1 with the sets exchanged. The radii are those of the samples, so that
    outlying samples raise it; ``coverage`` does not have this weakness. The interval (subsampling, new radii in every
    subset) is over the samples; the real ones are the same in every round.
    """

    title: ClassVar[str] = "Recall"
    meaning: ClassVar[str] = "Share of real samples that lie where generated ones lie: where it falls, variety is lost."

    k: int = 3  # the paper's, section 3

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        real = real_features(evidence.tools, self.against, self.k + 1)
        generated = sample_features(evidence)
        if len(generated) < 2 * self.k + 2:
            raise UndefinedMetric(f"{len(generated)} samples; at least {2 * self.k + 2} are needed for k = {self.k}")
        inside, near = balls_around_synthetic(real, generated, self.k)
        # where a subset holds fewer than k of a row's neighbours, the last one is used
        squared, order = neighbours(generated, reach(self.k, len(generated)))

        def reached(masks: Array) -> Array:
            shares = np.empty(len(masks))
            for row, mask in enumerate(masks):
                radius = np.where(mask, _kth(squared, mask[order], self.k), -1.0)
                still = np.zeros(len(real), dtype=bool)
                still[near.real[near.squared <= radius[near.synthetic]]] = True
                shares[row] = still.mean()
            return shares

        value = float(inside.mean())
        low, high = subsample_masks(
            reached, len(generated), metric_key(evidence, "recall"), clusters=evidence.samples.group
        )
        return Measurement(value, max(low, 0.0), min(high, 1.0), len(generated), details={"real": len(real)})


def _kth(near: Array, kept: Array, k: int) -> Array:
    """(N,) squared distance of the k-th neighbour that is kept; the farthest known where fewer are."""
    enough = kept.cumsum(axis=1, dtype=np.int16) >= k
    place = np.where(enough[:, -1], enough.argmax(axis=1), near.shape[1] - 1)
    radius: Array = near[np.arange(len(near)), place]
    return radius

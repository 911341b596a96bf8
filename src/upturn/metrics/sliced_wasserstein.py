"""Sliced Wasserstein distance between samples and real data."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from upturn.metrics._embedded import Real, metric_key, real_features, sample_features, strips
from upturn.metrics._transport import on_lines, root
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.seeds import generator, key
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement

_LEAST = 20
_AT_ONCE = 16  # directions that are sorted together: 6 MB each of 50,000 rows


@dataclass(frozen=True)
class SlicedWasserstein(Metric):
    """The p-th root of the mean, over random directions, of W_p^p between the projections of samples and of real ones.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures". Any dimension, all rows, n log n;
    unlike the exact distance its bias falls as n^(-1/2) whatever the dimension. The directions are the same in every
    round. ``floor`` in the details is the value for training data. The interval is the mean of the potentials on all
    lines, as in ``wasserstein``: directions held fixed, the real data as they are.
    """

    order: Literal[1, 2] = 2
    against: Real = "held_out"
    directions: int = 256

    title: ClassVar[str] = "Sliced Wasserstein distance"
    meaning: ClassVar[str] = (
        "Distance by which samples must be moved to become the real ones, along random lines: lower is better."
    )
    reference: ClassVar[tuple[str, str] | None] = ("floor", "real training data")
    better: ClassVar[Better] = "lower"

    def __post_init__(self) -> None:
        if self.directions < 1:
            raise ValueError(f"directions is {self.directions}: it must be at least 1")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        generated = sample_features(evidence, _LEAST)
        real = real_features(evidence.tools, self.against, _LEAST)
        cost, potential = self._cost(generated, real)
        low, high = bootstrap_mean(
            cost + potential, metric_key(evidence, "sliced_wasserstein"), clusters=evidence.samples.group
        )
        details: dict[str, object] = {"order": self.order, "real": len(real), "directions": self.directions}
        other: Real = "train" if self.against == "held_out" else "held_out"
        with suppress(UndefinedMetric):
            details["floor"] = root(self._cost(real_features(evidence.tools, other, _LEAST), real)[0], self.order)
        ends = [root(end, self.order) for end in (low, high)]
        return Measurement(root(cost, self.order), ends[0], ends[1], len(generated), details=details)

    def _cost(self, generated: Array, real: Array) -> tuple[float, Array]:
        """The mean of W_p^p over the directions, and (n,) of the potentials."""
        ways = generator(key("sliced_wasserstein")).standard_normal((self.directions, generated.shape[1])).T
        ways /= np.linalg.norm(ways, axis=0)
        total, potential = 0.0, np.zeros(len(generated))
        for start in range(0, self.directions, _AT_ONCE):
            some = ways[:, start : start + _AT_ONCE]
            x, y = (np.concatenate([part.astype(np.float64) @ some for part in strips(f)]) for f in (generated, real))
            costs, slopes = on_lines(x, y, self.order)
            total += float(costs.sum())
            potential += slopes.sum(axis=1)
        return total / self.directions, potential / self.directions

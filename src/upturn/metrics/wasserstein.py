"""Exact Wasserstein distance between samples and real data, in few dimensions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from upturn.metrics._embedded import Real, metric_key, real_features, sample_features, spread_rows
from upturn.metrics._transport import on_lines, root
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement

_LEAST = 20
_MOST_DIMS = 10  # beyond, 1,000 points are too few: the distance of two samples of one distribution falls as n^(-1/D)
_STEPS = 10_000_000  # of the network simplex, which stops by itself long before


@dataclass(frozen=True)
class Wasserstein(Metric):
    """The exact Wasserstein distance W_p between samples and real ones, in units of the features; low dimensions only.

    (min over couplings of E |x - y|^p)^(1/p), Villani 2009, definition 6.1. In one dimension by matching quantiles, all
    rows; in up to ten by the network simplex (POT) on ``at_most`` of either. Two samples of one distribution are about
    n^(-1/D) apart, not 0: ``floor`` in the details is the value for as many training samples. ``sliced_wasserstein`` is
    for more dimensions.

    The interval is the mean of the optimal potentials, which are the cost's derivative in each sample's weight (del
    Barrio & Loubes 2019, Annals of Probability 47): for the distance at this n, the real data as they are.
    """

    order: Literal[1, 2] = 1  # 1 is the distance in the theory of retraining
    against: Real = "held_out"
    at_most: int = 1000  # 0.5 s; the cost grows as n^3

    title: ClassVar[str] = "Wasserstein distance"
    meaning: ClassVar[str] = "Mean distance by which samples must be moved to become the real ones: lower is better."
    reference: ClassVar[tuple[str, str] | None] = ("floor", "real training data")
    better: ClassVar[Better] = "lower"

    def __post_init__(self) -> None:
        if self.at_most < _LEAST:
            raise ValueError(f"at_most is {self.at_most}: it must be at least {_LEAST}")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        every = sample_features(evidence, _LEAST)
        if every.shape[1] > _MOST_DIMS:
            raise UndefinedMetric(f"{every.shape[1]} feature dimensions; at most {_MOST_DIMS}: use sliced_wasserstein")
        rows = self._rows(every)
        real = real_features(evidence.tools, self.against, _LEAST)
        real = real[self._rows(real)]
        cost, potential = self._cost(every[rows], real)
        low, high = bootstrap_mean(
            cost + potential, metric_key(evidence, "wasserstein"), clusters=evidence.samples.group[rows]
        )
        details: dict[str, object] = {"order": self.order, "real": len(real)}
        other: Real = "train" if self.against == "held_out" else "held_out"
        with suppress(UndefinedMetric):
            rest = real_features(evidence.tools, other, len(rows))
            rest = rest[spread_rows(len(rest), len(rows))]
            details["floor"] = root(self._cost(rest, real)[0], self.order)
        note = "" if len(rows) == len(every) else f"{len(rows)} of {len(every)} samples are used"
        ends = [root(end, self.order) for end in (low, high)]
        return Measurement(root(cost, self.order), ends[0], ends[1], len(rows), note=note, details=details)

    def _rows(self, features: Array) -> Array:
        return spread_rows(len(features), len(features) if features.shape[1] == 1 else self.at_most)

    def _cost(self, generated: Array, real: Array) -> tuple[float, Array]:
        """W_p^p and (n,) the potential of each sample, mean 0."""
        generated, real = generated.astype(np.float64), real.astype(np.float64)
        if generated.shape[1] == 1:
            costs, potentials = on_lines(generated, real, self.order)
            return float(costs[0]), potentials[:, 0]
        import ot
        from scipy.spatial.distance import cdist

        table = cdist(generated, real) ** self.order
        weights = [np.full(len(part), 1 / len(part)) for part in (generated, real)]
        _, found = ot.emd(*weights, table, numItermax=_STEPS, log=True)
        return float(found["cost"]), found["u"] - found["u"].mean()

"""Calibration error of a Gaussian model on held-out points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric, Standardises
from upturn.statistics.intervals import subsample_masks
from upturn.types import Array, Measurement

_LEAST = 20
_BRIDGE = math.sqrt(2 / math.pi) * math.pi / 8  # E of the mean |Brownian bridge|: over sqrt(n), the value by chance


@dataclass(frozen=True)
class Pit(Metric):
    """How far the probability integral transforms of held-out points are from uniform: 0 is calibrated, 1/2 the worst.

    Dawid 1984; Diebold, Gunther & Tay 1998. Each point's d coordinates become independent uniform numbers where the
    model is right (Rosenblatt 1952: the part of coordinate i that those before it do not explain, and its probability);
    so does its distance from the middle. The value is the mean over these d + 1 of the area between their distribution
    and the diagonal. ``spread`` in the details is the mean square of the standardised coordinates: 1 where calibrated,
    above 1 where the model is too narrow, as it becomes when it is retrained on its own samples. ``by_chance`` is the
    value for a right model.

    For models that can standardise points (``gaussian``). The interval is over the held-out points, by subsampling.
    """

    model: str = "policy"

    title: ClassVar[str] = "Calibration error"
    meaning: ClassVar[str] = (
        "Distance between predicted probabilities and their frequencies on unseen points: 0 is calibrated."
    )
    reference: ClassVar[tuple[str, str] | None] = ("by_chance", "a right model")
    kinds: ClassVar[frozenset[str]] = frozenset({"points"})
    better: ClassVar[Better] = "lower"
    held_out_only: ClassVar[bool] = True  # the samples of the evaluation are not used

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        from scipy.stats import kstest

        model, held_out = evidence.tools.model(self.model), evidence.tools.held_out
        if not isinstance(model, Standardises):
            raise UndefinedMetric(f"the model '{self.model}' is no Gaussian: its points have no standard form")
        n = len(held_out)
        if n < _LEAST:
            raise UndefinedMetric(f"{n} held-out points; at least {_LEAST} are needed")
        standard = np.asarray(model.standardised(held_out), dtype=np.float64)
        if not np.isfinite(standard).all():
            raise UndefinedMetric("the model's covariance has collapsed: points have no standard form")
        uniform = transforms(standard)

        def off(masks: Array) -> Array:
            return np.array([np.mean([from_uniform(column) for column in uniform[mask].T]) for mask in masks])

        value = float(off(np.ones((1, n), dtype=bool))[0])
        low, high = subsample_masks(off, n, metric_key(evidence, "pit"))
        details = {
            "by_chance": _BRIDGE / math.sqrt(n), "spread": float((standard**2).mean()),
            "each": [from_uniform(column) for column in uniform.T],
            "p": float(kstest(uniform[:, -1], "uniform").pvalue),
        }
        return Measurement(value, max(low, 0.0), min(high, 0.5), n, details=details)


def transforms(standard: Array) -> Array:
    """(N, d + 1) of standardised points (N, d): each coordinate's probability, then that of the distance's square."""
    from scipy.special import gammainc, ndtr

    radius = gammainc(standard.shape[1] / 2, (standard**2).sum(axis=1) / 2)  # chi-square with d degrees of freedom
    return np.concatenate([ndtr(standard), radius[:, None]], axis=1)


def from_uniform(values: Array) -> float:
    """The area between the distribution function of values in [0, 1] and the diagonal, exact."""
    n = len(values)
    edges = np.concatenate([[0.0], np.sort(values), [1.0]])
    level = np.arange(n + 1) / n  # between edges k and k + 1
    left, right = level - edges[:-1], level - edges[1:]
    width = np.diff(edges)
    # |level - u| over an interval: a trapezium, or two triangles where the diagonal crosses
    crossed = (left > 0) & (right < 0)
    area = np.where(crossed, (left**2 + right**2) / 2, width * (np.abs(left) + np.abs(right)) / 2)
    return float(area.sum())

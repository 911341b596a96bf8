"""Fréchet distance between Gaussians fitted to the features of samples and of real data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.metrics._embedded import Real, metric_key, real_features, sample_features
from upturn.metrics._gaussian_fit import distance_and_influence, fitted, moments
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class Frechet(Metric):
    """Fréchet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) on features (FID, where they are Inception's).

    Heusel et al., NeurIPS 2017. It is biased upwards at finite n, by about c/n: compare equal n only, or use
    ``frechet_unbiased``; ``floor`` in the details is the value for training data. It is undefined below D + 1 samples,
    where the fitted covariance is singular by construction.

    The interval is that of the statistic at this n with the real data as they are: the mean of its influence values
    (infinitesimal jackknife, Efron 1982, chapter 6), because resampling with duplicates would shrink the covariance.
    """

    against: Real = "held_out"

    title: ClassVar[str] = "Fréchet distance"
    meaning: ClassVar[str] = (
        "Distance between the distributions of generated and real samples, by their mean and spread: 0 is equal."
    )
    reference: ClassVar[tuple[str, str] | None] = ("floor", "real training data")
    better: ClassVar[Better] = "lower"
    by_features: ClassVar[bool] = True

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        generated = sample_features(evidence)
        n, dims = generated.shape
        if n < dims + 1:
            raise UndefinedMetric(f"{n} samples for {dims} feature dimensions; at least {dims + 1} are needed")
        real = fitted(real_features(evidence.tools, self.against, dims + 1))
        value, influence = distance_and_influence(generated, real)
        low, high = bootstrap_mean(value + influence, metric_key(evidence, "frechet"), clusters=evidence.samples.group)
        details: dict[str, object] = {"dims": dims, "real": real.n}
        other: Real = "train" if self.against == "held_out" else "held_out"
        try:
            opposite = fitted(real_features(evidence.tools, other, dims + 1))
        except UndefinedMetric:
            opposite = None
        if opposite is not None:
            details[other] = opposite.distance(*moments(generated))
            details["floor"] = real.distance(opposite.mean, opposite.covariance)
        return Measurement(value, max(low, 0.0), high, n, details=details)

"""Fréchet distance between Gaussians fitted to the features of samples and of real data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import Real, made_features, metric_key, real_features
from upturn.metrics._silence import CannotSpeak, speaks_or_says_why
from upturn.protocols import Evidence
from upturn.seeds import generator
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class Frechet:
    """Fréchet distance |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) on features (FID, where they are Inception's).

    Heusel et al., NeurIPS 2017. It is biased upwards at finite n, by about c/n: compare equal n only; ``extrapolated``
    in the details removes the term in 1/n of the samples (Chong & Forsyth, CVPR 2020), and ``floor`` is what training
    data itself gives. It refuses below D + 1 samples, where the fitted covariance is singular by construction.

    The interval is that of the statistic at this n with the real data as they are: the mean of its influence values
    (infinitesimal jackknife, Efron 1982, chapter 6), because resampling with duplicates would shrink the covariance.
    """

    against: Real = "held_out"

    kinds: ClassVar[frozenset[str]] = frozenset({"text", "image", "points"})
    better: ClassVar[str] = "lower"
    by_features: ClassVar[bool] = True

    @speaks_or_says_why
    def measure(self, evidence: Evidence) -> Measurement:
        made = made_features(evidence)
        n, dims = made.shape
        if n < dims + 1:
            raise CannotSpeak(f"{n} samples for {dims} feature dimensions; at least {dims + 1} are needed")
        real = Fit.of(real_features(evidence.tools, self.against, dims + 1))
        value, influence = distance_and_influence(made, real)
        key = metric_key(evidence, "frechet")
        low, high = bootstrap_mean(value + influence, key, clusters=evidence.samples.group)
        details: dict[str, object] = {"dims": dims, "real": real.n}
        if n >= 2 * (dims + 1):
            order = generator(key).permutation(n)
            halves = [real.distance(Fit.of(made[part])) for part in (order[: n // 2], order[n // 2 :])]
            details["extrapolated"] = 2 * value - float(np.mean(halves))
        other: Real = "train" if self.against == "held_out" else "held_out"
        try:
            opposite = Fit.of(real_features(evidence.tools, other, dims + 1))
        except CannotSpeak:
            opposite = None
        if opposite is not None:
            details[other] = opposite.distance(Fit.of(made))
            details["floor"] = real.distance(opposite)
        return Measurement(value, max(low, 0.0), high, n, details=details)


@dataclass(frozen=True)
class Fit:
    """A Gaussian fitted to n rows: mean (D,), covariance (D, D) with n - 1, and its symmetric square root."""

    n: int
    mean: Array
    covariance: Array
    root: Array

    @staticmethod
    def of(features: Array) -> Fit:
        mean = features.mean(axis=0)
        centred = features - mean
        covariance = centred.T @ centred / max(1, len(features) - 1)
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return Fit(len(features), mean, covariance, root)

    def distance(self, other: Fit) -> float:
        """The trace of (S1 S2)^(1/2) is that of the root of the symmetric R1 S2 R1: real eigenvalues, no Schur form."""
        shift = self.mean - other.mean
        inner = np.linalg.eigvalsh(self.root @ other.covariance @ self.root)
        overlap = np.sqrt(inner.clip(min=0)).sum()
        return max(0.0, float(shift @ shift + np.trace(self.covariance) + np.trace(other.covariance) - 2 * overlap))


def distance_and_influence(made: Array, real: Fit) -> tuple[float, Array]:
    """The distance of ``made`` (N, D) to a fit, and (N,) the derivative of it in the weight of each row (mean 0).

    The derivative in the covariance is I - T, T = R (R S R)^(-1/2) R with R the root of the real covariance: T is the
    optimal transport map from the samples' Gaussian to the real one. Directions without variance carry nothing.
    """
    mean = made.mean(axis=0)
    centred = made - mean
    covariance = centred.T @ centred / (len(made) - 1)
    values, vectors = np.linalg.eigh(real.root @ covariance @ real.root)
    roots = np.sqrt(values.clip(min=0))
    shift = mean - real.mean
    value = float(shift @ shift + np.trace(covariance) + np.trace(real.covariance) - 2 * roots.sum())
    usable = roots > roots.max(initial=0.0) * 1e-7
    half = real.root @ vectors[:, usable] / np.sqrt(roots[usable])
    spread = (centred**2).sum(axis=1) - ((centred @ half) ** 2).sum(axis=1)
    influence = 2 * centred @ shift + spread - spread.mean()
    return max(0.0, value), influence

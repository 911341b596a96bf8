"""Gaussians fitted to features, a strip of rows at a time, and the Fréchet distance between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.metrics._embedded import strips
from upturn.statistics.remembered import remembered
from upturn.types import Array


@dataclass(frozen=True)
class Fit:
    """A Gaussian fitted to n rows: mean (D,), covariance (D, D) with n - 1, and its symmetric square root."""

    n: int
    mean: Array
    covariance: Array
    root: Array

    @staticmethod
    def of(features: Array) -> Fit:
        mean, covariance = moments(features)
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        return Fit(len(features), mean, covariance, root)

    def distance(self, mean: Array, covariance: Array) -> float:
        """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) to another Gaussian.

        The trace of (S1 S2)^(1/2) is that of the root of the symmetric R1 S2 R1: real eigenvalues, no Schur form.
        """
        shift = self.mean - mean
        inner = np.linalg.eigvalsh(self.root @ covariance @ self.root)
        overlap = np.sqrt(inner.clip(min=0)).sum()
        return max(0.0, float(shift @ shift + np.trace(self.covariance) + np.trace(covariance) - 2 * overlap))


@remembered
def fitted(features: Array) -> Fit:
    """:meth:`Fit.of`, once for real data that is the same in every round."""
    return Fit.of(features)


def moments(features: Array) -> tuple[Array, Array]:
    """Mean (D,) and covariance (D, D) with n - 1, float64."""
    n, dims = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dims, dims))
    for strip in strips(features):
        centred = strip - mean
        covariance += centred.T @ centred
    return mean, covariance / max(1, n - 1)


def distance_and_influence(made: Array, real: Fit) -> tuple[float, Array]:
    """The distance of ``made`` (N, D) to a fit, and (N,) the derivative of it in the weight of each row (mean 0).

    The derivative in the covariance is I - T, T = R (R S R)^(-1/2) R with R the root of the real covariance: T is the
    optimal transport map from the samples' Gaussian to the real one. Directions without variance carry nothing.
    """
    mean, covariance = moments(made)
    values, vectors = np.linalg.eigh(real.root @ covariance @ real.root)
    roots = np.sqrt(values.clip(min=0))
    shift = mean - real.mean
    value = float(shift @ shift + np.trace(covariance) + np.trace(real.covariance) - 2 * roots.sum())
    usable = roots > roots.max(initial=0.0) * 1e-7
    half = real.root @ vectors[:, usable] / np.sqrt(roots[usable])
    spread, along = [], []
    for strip in strips(made):
        centred = strip - mean
        spread.append((centred**2).sum(axis=1) - ((centred @ half) ** 2).sum(axis=1))
        along.append(centred @ shift)
    each = np.concatenate(spread)
    influence: Array = 2 * np.concatenate(along) + each - each.mean()
    return max(0.0, value), influence

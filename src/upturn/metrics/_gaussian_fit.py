"""Gaussians fitted to features, in chunks of rows, and the Fréchet distance between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.metrics._embedded import strips
from upturn.statistics.memo import remembered
from upturn.types import Array


@dataclass(frozen=True)
class GaussianFit:
    """A Gaussian fitted to n rows: mean (D,), covariance (D, D) with n - 1, and a factor L of it: L L^T."""

    n: int
    mean: Array
    covariance: Array
    factor: Array

    @staticmethod
    def of(features: Array) -> GaussianFit:
        mean, covariance = moments(features)
        return GaussianFit(len(features), mean, covariance, _factor(covariance))

    def distance(self, mean: Array, covariance: Array) -> float:
        """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) to another Gaussian.

        The trace of (S1 S2)^(1/2) is that of the root of the symmetric L^T S2 L: real eigenvalues, no Schur form.
        """
        shift = self.mean - mean
        inner = np.linalg.eigvalsh(self.factor.T @ covariance @ self.factor)
        overlap = np.sqrt(inner.clip(min=0)).sum()
        return max(0.0, float(shift @ shift + np.trace(self.covariance) + np.trace(covariance) - 2 * overlap))


@remembered
def fitted(features: Array) -> GaussianFit:
    """:meth:`Fit.of`, computed once for real data, which is the same in every round."""
    return GaussianFit.of(features)


def moments(features: Array) -> tuple[Array, Array]:
    """Mean (D,) and covariance (D, D) with n - 1, float64."""
    n, dims = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((dims, dims))
    for strip in strips(features):
        centred = strip - mean
        covariance += centred.T @ centred
    return mean, covariance / max(1, n - 1)


def distance_and_influence(generated: Array, real: GaussianFit) -> tuple[float, Array]:
    """The distance of ``generated`` (N, D) to a fit, and (N,) the derivative of it in the weight of each row (mean 0).

    The derivative in the covariance is I - T, T = L (L^T S L)^(-1/2) L^T with L L^T the real covariance: T is the
    optimal transport map from the samples' Gaussian to the real one. Directions without variance contribute nothing.
    The derivative, which only the interval needs, is computed in the features' own precision.
    """
    mean, covariance = moments(generated)
    values, vectors = np.linalg.eigh(real.factor.T @ covariance @ real.factor)
    roots = np.sqrt(values.clip(min=0))
    shift = mean - real.mean
    value = float(shift @ shift + np.trace(covariance) + np.trace(real.covariance) - 2 * roots.sum())
    usable = roots > roots.max(initial=0.0) * 1e-7
    half = (real.factor @ vectors[:, usable] / np.sqrt(roots[usable])).astype(generated.dtype)
    spread, along = [], []
    for strip in strips(generated):
        centred = (strip - mean).astype(generated.dtype)
        spread.append(_squares(centred) - _squares(centred @ half))
        along.append(centred @ shift)
    each = np.concatenate(spread)
    influence: Array = 2 * np.concatenate(along) + each - each.mean()
    return max(0.0, value), influence


def _factor(covariance: Array) -> Array:
    """L with L L^T: by Cholesky; by eigenvectors, which take longer, where the covariance is singular."""
    try:
        found: Array = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        found = vectors * np.sqrt(values.clip(min=0))
    return found


def _squares(rows: Array) -> Array:
    """(N,) float64."""
    found: Array = np.square(rows, dtype=np.float64).sum(axis=1)
    return found

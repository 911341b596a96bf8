"""Gaussian mixtures with diagonal covariances, R at once: density, draws and EM."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from upturn.types import Array

_FLOOR = 1e-8  # of a variance: a component on one point stays a density
_NONE = 1e-300


class Mixtures(NamedTuple):
    """R mixtures of k components: weights (R, k), means (R, k, d), variances (R, k, d) of each coordinate."""

    weights: Array
    means: Array
    variances: Array

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        """(R, n, d) draws, and (R, n) the component of each."""
        ends = np.cumsum(self.weights, axis=1)
        u = rng.random((len(ends), n)) * ends[:, -1:]
        owner = np.minimum((u[:, :, None] >= ends[:, None, :]).sum(axis=2), ends.shape[1] - 1)
        rows = np.arange(len(ends))[:, None]
        noise = rng.standard_normal((*owner.shape, self.means.shape[2]))
        return self.means[rows, owner] + np.sqrt(self.variances[rows, owner]) * noise, owner

    def log_joint(self, x: Array) -> Array:
        """(R, N, k) log weight + log density of each component at x (R, N, d)."""
        precision = 1 / self.variances
        quadratic = np.concatenate([precision, -2 * self.means * precision], axis=2)
        constant = (np.square(self.means) * precision + np.log(2 * math.pi * self.variances)).sum(axis=2)
        both = np.concatenate([np.square(x), x], axis=2)
        with np.errstate(divide="ignore"):
            offset = np.log(self.weights) - constant / 2
        return np.asarray(offset[:, None, :] - both @ quadratic.swapaxes(1, 2) / 2)


def fit(x: Array, weights: Array, start: Mixtures, steps: int) -> Mixtures:
    """EM from ``start`` on x (R, N, d), samples weighed by (N,) that sum to 1.

    After every step the mixture has the mean and the variances of its sample (Redner & Walker 1984, section 4), so what
    theory says of these holds for any number of steps. A component that owns nothing keeps its place at weight 0.
    """
    now = start
    both = np.concatenate([np.square(x), x], axis=2)
    d = x.shape[2]
    for _ in range(steps):
        posterior = now.log_joint(x)
        posterior -= posterior.max(axis=2, keepdims=True)
        np.exp(posterior, out=posterior)
        posterior *= weights[None, :, None] / posterior.sum(axis=2, keepdims=True)
        share = posterior.sum(axis=1)
        sums = posterior.swapaxes(1, 2) @ both / np.maximum(share, _NONE)[:, :, None]
        alive = (share > _NONE)[:, :, None]
        means = np.where(alive, sums[:, :, d:], now.means)
        spread = np.maximum(sums[:, :, :d] - np.square(means), _FLOOR)
        now = Mixtures(share, means, np.where(alive, spread, now.variances))
    return now

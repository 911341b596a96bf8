"""Rounds of Gaussian fits, R replicas at once, under five policies.

Samples are not drawn individually: a fit needs only their mean, N(μ, Σ/n), and scatter, Wishart(Σ, n - 1), which are
independent (Bartlett's decomposition gives the second as A Aᵀ with A lower-triangular). A subsample of a pool has no
such statistics: there every sample is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from upturn.theory import Division
from upturn.types import Array


class State(NamedTuple):
    """The fitted Gaussians of R replicas; logs in addition to the roots, which underflow after many rounds."""

    mean: Array  # (R, d)
    root: Array  # (R, d, d) lower-triangular, root rootᵀ = Σ
    log_sigma: Array  # (R, d) of each coordinate
    log_det: Array  # (R,) of Σ


class Setup(NamedTuple):
    """n samples a round, R replicas in d dimensions; ``lam`` is synthetic : real where a policy mixes them."""

    n: int
    replicas: int
    dim: int
    division: Division
    lam: float = math.inf
    temperature: float = 1.0


def bartlett(rng: np.random.Generator, n: int, replicas: int, dim: int) -> Array:
    """(R, d, d) lower-triangular A with A Aᵀ ~ Wishart(I, n - 1): the scatter of n standard normal samples."""
    root = np.zeros((replicas, dim, dim))
    degrees = n - np.arange(1, dim + 1)
    root[:, np.arange(dim), np.arange(dim)] = np.sqrt(rng.chisquare(degrees, (replicas, dim)))
    below = np.tril_indices(dim, -1)
    root[:, below[0], below[1]] = rng.standard_normal((replicas, len(below[0])))
    return root


def replace(rng: np.random.Generator, of: Setup) -> Iterator[State]:
    """The roots are products of triangular factors; rows are normalised, and their lengths are kept as logs."""
    mean, root, log_sigma, log_det = _truth(of)
    unit, divisor = root, of.n if of.division == "n" else of.n - 1
    while True:
        noise = rng.standard_normal((of.replicas, of.dim, 1))
        mean = mean + of.temperature * (root @ noise)[:, :, 0] / math.sqrt(of.n)
        factor = bartlett(rng, of.n, of.replicas, of.dim) * (of.temperature / math.sqrt(divisor))
        unit = unit @ factor
        length = np.sqrt(np.einsum("rij,rij->ri", unit, unit))
        unit = unit / length[:, :, None]
        log_sigma = log_sigma + np.log(length)
        log_det = log_det + 2 * np.log(np.einsum("rii->ri", factor)).sum(axis=1)
        root = np.exp(log_sigma)[:, :, None] * unit
        yield State(mean, root, log_sigma, log_det)


def accumulate(rng: np.random.Generator, of: Setup) -> Iterator[State]:
    """Pooled mean and scatter of all kn samples, updated from those of the newest n; the first n are real."""
    mean, root, _, _ = _truth(of)
    scatter = np.zeros((of.replicas, of.dim, of.dim))
    k, temperature = 0, 1.0  # real samples are not tempered
    while True:
        shift = temperature * (root @ rng.standard_normal((of.replicas, of.dim, 1))) / math.sqrt(of.n)
        new = temperature * root @ bartlett(rng, of.n, of.replicas, of.dim)
        scatter = scatter + square(new) + (of.n * k / (k + 1)) * square(shift)
        k, temperature = k + 1, of.temperature
        mean = mean + shift[:, :, 0] / k
        state = _fitted(mean, scatter / (of.n * k if of.division == "n" else of.n * k - 1))
        root = state.root
        yield state


def blend(rng: np.random.Generator, of: Setup, fresh: bool) -> Iterator[State]:
    """n real samples (new ones in every round if ``fresh``) and n synthetic ones, weights 1 : λ; round 1 is real."""
    n, w = of.n, 0.0 if math.isinf(of.lam) else 1 / (1 + of.lam)
    correction = 1 - (w**2 + (1 - w) ** 2) / n if of.division == "n-1" else 1.0
    real, scatter = _real(rng, of)
    state = _fitted(real, scatter / (n if of.division == "n" else n - 1))
    while True:
        yield state
        if fresh:
            real, scatter = _real(rng, of)
        noise = (state.root @ rng.standard_normal((of.replicas, of.dim, 1)))[:, :, 0]
        generated = state.mean + of.temperature * noise / math.sqrt(n)
        own = square(of.temperature * state.root @ bartlett(rng, n, of.replicas, of.dim))
        between = w * (1 - w) * square((real - generated)[:, :, None])
        covariance = (w * scatter + (1 - w) * own) / n + between
        state = _fitted(w * real + (1 - w) * generated, covariance / correction)


def subsample(rng: np.random.Generator, of: Setup) -> Iterator[State]:
    """Fitted on n draws, with replacement, from all samples so far.

    Few distinct draws may not span all dimensions: the root comes from a QR of the draws and may be singular.
    """
    pool = rng.standard_normal((of.replicas, of.n, of.dim))
    rows = np.arange(of.replicas)[:, None]
    while True:
        picked = pool[rows, rng.integers(pool.shape[1], size=(of.replicas, of.n))]
        mean = picked.mean(axis=1)
        upper = np.asarray(np.linalg.qr(picked - mean[:, None], mode="r"))
        root = upper.swapaxes(1, 2)
        root = root / math.sqrt(of.n if of.division == "n" else of.n - 1)
        with np.errstate(divide="ignore"):
            log_det = 2 * np.log(np.abs(np.einsum("rii->ri", root))).sum(axis=1)
            log_sigma = np.log(np.square(root).sum(axis=2)) / 2
        yield State(mean, root, log_sigma, log_det)
        noise = rng.standard_normal((of.replicas, of.n, of.dim)) @ root.swapaxes(1, 2)
        pool = np.concatenate([pool, mean[:, None] + of.temperature * noise], axis=1)


def _truth(of: Setup) -> State:
    zeros = np.zeros((of.replicas, of.dim))
    return State(zeros, np.tile(np.eye(of.dim), (of.replicas, 1, 1)), zeros, np.zeros(of.replicas))


def _real(rng: np.random.Generator, of: Setup) -> tuple[Array, Array]:
    """(R, d) means and (R, d, d) scatters of n samples from N(0, I)."""
    mean = rng.standard_normal((of.replicas, of.dim)) / math.sqrt(of.n)
    return mean, square(bartlett(rng, of.n, of.replicas, of.dim))


def square(a: Array) -> Array:
    """A Aᵀ of each replica."""
    return np.asarray(a @ a.swapaxes(1, 2))


def _fitted(mean: Array, covariance: Array) -> State:
    root = np.linalg.cholesky(covariance)
    log_det = 2 * np.log(np.einsum("rii->ri", root)).sum(axis=1)
    return State(mean, root, np.log(np.einsum("rii->ri", covariance)) / 2, log_det)

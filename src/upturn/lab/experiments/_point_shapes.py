"""What samples of a shape in the plane are worth, of M models at once: modes, distances, likelihood."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from upturn import seeds
from upturn.config import components
from upturn.types import Array

PIECES = 8  # modes of eight Gaussians; other shapes are cut into as many
WITHIN = 3.0  # standard deviations of the noise around the shape: 98.9% of the data
_CLEAN = 1024  # points that trace a shape
_TINY = 1e-6  # noise of these: a source has no two alike
_DIRECTIONS = 64  # of the sliced distance
_EXACT = 400  # points of each side in an exact assignment


class Shape(NamedTuple):
    """A shape without its noise: (C, 2) points of it, the piece (C,) of each, (8,) due shares, the noise's width."""

    points: Array
    piece: Array
    due: Array
    std: float


@cache
def shape(name: str, std: float) -> Shape:
    """Eight Gaussians have their centres; what is continuous is cut into eight pieces (k-means on its own points)."""
    fields = {"name": "points", "shape": name, "std": _TINY, "n": _CLEAN, "held_out": 0.1}
    clean = components.make("source", fields).load().train.content.astype(np.float64)
    centres = np.unique(np.round(clean, 3), axis=0)
    if len(centres) <= PIECES:
        return Shape(centres, np.arange(len(centres)), np.full(len(centres), 1 / len(centres)), std)
    from sklearn.cluster import KMeans

    piece = KMeans(PIECES, n_init=4, random_state=0).fit_predict(clean)
    return Shape(clean, piece, np.bincount(piece, minlength=PIECES) / len(clean), std)


def data(name: str, std: float, n: int, seed: int) -> tuple[Array, Array]:
    """(n, 2) real samples to train on, and (n, 2) held out."""
    fields = {"name": "points", "shape": name, "std": std, "n": 2 * n + 40 * int(n**0.5), "held_out": 0.5, "seed": seed}
    splits = components.make("source", fields).load()
    return splits.train.content[:n], splits.held_out.content[:n]


def shares(of: Shape, x: Array) -> tuple[Array, Array]:
    """Of (M, n, 2) samples: (M, 8) the share of all that lies near each piece, and (M,) the share near any."""
    from scipy.spatial import cKDTree

    far, nearest = cKDTree(of.points).query(x.reshape(-1, 2))
    near = (far <= WITHIN * of.std).reshape(x.shape[:2])
    piece = of.piece[nearest].reshape(x.shape[:2])
    each = np.stack([np.bincount(p[ok], minlength=len(of.due)) for p, ok in zip(piece, near, strict=True)])
    return each / x.shape[1], near.mean(axis=1)


def sliced(x: Array, y: Array) -> Array:
    """(M,) sliced 2-Wasserstein distance of (M, n, 2) and (M, n, 2): the same 64 directions for all."""
    angle = (np.arange(_DIRECTIONS) + 0.5) * (np.pi / _DIRECTIONS)
    across = np.stack([np.cos(angle), np.sin(angle)]).astype(x.dtype)
    gaps = [np.sort(a @ across, axis=0) - np.sort(b @ across, axis=0) for a, b in zip(x, y, strict=True)]
    return np.array([np.sqrt(np.square(gap).mean()) for gap in gaps])


def exact_distance(x: Array, y: Array) -> Array:
    """(M,) 2-Wasserstein distance of the first 400 of either side, by exact assignment."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    found = []
    for a, b in zip(x[:, :_EXACT], y[:, :_EXACT], strict=True):
        cost = cdist(a, b, "sqeuclidean")
        found.append(np.sqrt(cost[linear_sum_assignment(cost)].mean()))
    return np.array(found)


def log_likelihood(x: Array, held_out: Array, width: float, most: int = 1000) -> Array:
    """(M,) mean log density, nats, of held-out real points under a Gaussian kernel density of the samples."""
    from scipy.spatial.distance import cdist
    from scipy.special import logsumexp

    constant = np.log(2 * np.pi * width**2)
    return np.array([
        (logsumexp(cdist(b[:most], a, "sqeuclidean") / (-2 * width**2), axis=1) - np.log(len(a)) - constant).mean()
        for a, b in zip(x, held_out, strict=True)
    ])


def keys(purpose: str, seeds_of: list[int], at: int) -> list[int]:
    """A key for each model: of its seed and the retraining alone, so that every λ has the same chance."""
    return [seeds.key(f"lab points {purpose}", seed, at) for seed in seeds_of]

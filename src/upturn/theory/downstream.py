"""What synthetic data adds to a classifier trained on it: two Gaussian classes N(±θ, I), a learner of means."""

from __future__ import annotations

import math

import numpy as np

from upturn.types import Array


def added_mean_error(n: int, synthetic: int, dim: int, fitted: int | None = None, shift: float = 0.0) -> float:
    """Mean squared error of a class's mean, in variances of one coordinate, of n real and ``synthetic`` samples.

    The model is a normal whose mean was fitted on ``fitted`` other samples, which lie ``shift`` (a length) beside
    the real ones; None: on the same n, and on nothing else. Derivation: ``docs/theory.md``; checked by the lab.
    ValueError where there is neither.
    """
    if n < 0 or synthetic < 0 or n + synthetic == 0 or dim < 1 or (fitted is not None and fitted < 1):
        raise ValueError(f"needs samples and dimensions: n = {n}, {synthetic}, dim = {dim}, fitted = {fitted}")
    share = synthetic / (n + synthetic)
    drawn = dim / synthetic if synthetic else 0.0
    if fitted is None:
        if n == 0:
            raise ValueError("a generator that was fitted on the same samples needs some")
        return dim / n + share**2 * drawn
    real = dim / n if n else 0.0
    return (1 - share) ** 2 * real + share**2 * (shift**2 + dim / fitted + drawn)


def best_synthetic_count(n: int, dim: int, fitted: int, shift: float) -> float:
    """The number of synthetic samples that minimises ``added_mean_error``; inf where more is always better.

    From its derivative: with B = shift² + dim/fitted, it is n dim / (2 n B - dim) for 2 n B > dim.
    """
    spare = 2 * n * (shift**2 + dim / fitted) - dim
    return n * dim / spare if spare > 0 else math.inf


def plain_error(w: Array, threshold: Array | float, theta: Array) -> Array:
    """(...) balanced error of ``sign(w·x - threshold)``, w (..., d), between N(θ, I) and N(-θ, I): exact."""
    from scipy.special import ndtr

    length = np.linalg.norm(w, axis=-1)
    along = w @ theta
    return np.asarray(0.5 * (ndtr((threshold - along) / length) + ndtr((-threshold - along) / length)))


def attacked_error(w: Array, theta: Array, epsilon: float) -> Array:
    """(...) error of ``sign(w·x)``, w (..., d), where each coordinate of x is moved by up to ε against it.

    ``Φ((ε|w|_1 - w·θ)/|w|_2)``: the worst shift is -ε y sign(w) (the Gaussian setting of Schmidt et al. 2018,
    "Adversarially robust generalization requires more data"; checked by the lab on attacked samples).
    """
    from scipy.special import ndtr

    length = np.linalg.norm(w, axis=-1)
    return np.asarray(ndtr((epsilon * np.abs(w).sum(axis=-1) - w @ theta) / length))

"""Guided sampling of two Gaussian classes in one dimension, R models at once, with exact denoisers.

Both classes are equally likely. The probability-flow ODE is monotone in its start, so an even grid of normal quantiles
maps to what infinitely many samples would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_STEPS, _LOW, _HIGH, _RHO = 96, 0.02, 20.0, 7.0  # of Heun's method: variances without guidance are exact to 0.3%


class Classes(NamedTuple):
    """(R, 2) means and (R, 2) variances of the two classes."""

    means: Array
    variances: Array


def sample(of: Classes, start: Array, scale: float) -> Array:
    """(R, 2, n) samples of each class from unit noise ``start`` (R, 2, n), guided away from the model without a class.

    Classifier-free guidance (Ho & Salimans 2022, equation 6): scale 1 is none.
    """
    import torch

    from upturn.config import components
    from upturn.diffusion.guidance import guided

    means, variances = (torch.from_numpy(part)[:, :, None] for part in of)  # (R, 2, 1)

    def own(x: Tensor, sigma: Tensor) -> Tensor:
        return (variances * x + sigma**2 * means) / (variances + sigma**2)

    def either(x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] under both classes: their estimates weighted by posterior probability."""
        wide = (variances + sigma**2)[:, None]  # (R, 1, 2, 1) against x (R, 2, 1, n)
        rows = x[:, :, None]
        estimates = (variances[:, None] * rows + sigma**2 * means[:, None]) / wide
        logit = -(rows - means[:, None]).square() / (2 * wide) - wide.log() / 2
        return (logit.softmax(dim=2) * estimates).sum(dim=2)

    sigmas = levels()
    noise = torch.from_numpy(start)
    denoise = guided(own, either, scale) if scale != 1 else own
    # the exact solution starts with a standard deviation of √(variance + sigma²) around the mean, not of sigma around 0
    begin = means + (variances + sigmas[0] ** 2).sqrt() * noise
    generated: Array = components.make("sampler", "heun")(denoise, begin, sigmas, lambda step: noise).numpy()
    return generated


def levels() -> Tensor:
    """(steps + 1,) float64 noise levels of the ODE, the last 0."""
    from upturn.diffusion.noise_levels import power_sigmas

    return power_sigmas(_STEPS, _LOW, _HIGH, _RHO).double()


def quantiles(count: int) -> Array:
    """(count,) quantiles of a standard normal, evenly spaced in probability, scaled to a variance of 1."""
    from scipy.special import ndtri

    grid = ndtri((np.arange(count) + 0.5) / count)
    return np.asarray(grid / grid.std())


def limit(scale: float, start: Classes, rounds: int, nodes: int = 5000) -> list[Classes]:
    """The two classes after each of t rounds of infinitely many guided samples: (1, 2) each."""
    noise = np.tile(quantiles(nodes), (1, 2, 1))
    path, now = [], start
    for _ in range(rounds):
        generated = sample(now, noise, scale)
        now = Classes(generated.mean(axis=2), generated.var(axis=2))
        path.append(now)
    return path

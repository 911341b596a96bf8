"""Sampler: Euler steps of the probability-flow ODE, which is DDIM with eta = 0."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from upturn.diffusion.base_sampler import BaseSampler, Noise

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise



@dataclass(frozen=True)
class Euler(BaseSampler):
    """Euler steps of the probability-flow ODE, first order (Karras et al. 2022, Algorithm 1 without its correction).

    In these coordinates it is DDIM with eta = 0 (Song et al. 2021, equation 13).
    """

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        for now, later in pairwise(sigmas.unbind()):
            estimate = denoise(x, now)
            x = estimate + later / now * (x - estimate)  # nothing cancels, however great the first noise level
        return x

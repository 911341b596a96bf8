"""Sampler: Heun steps of the probability-flow ODE, second order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from upturn.diffusion.base_sampler import BaseSampler, Noise
from upturn.diffusion.samplers._heun_step import heun_step

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise



@dataclass(frozen=True)
class Heun(BaseSampler):
    """Second-order steps of the probability-flow ODE (Karras et al. 2022, Algorithm 1); 2 steps - 1 evaluations."""

    order: ClassVar[int] = 2
    needs_finite_start: ClassVar[bool] = True

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        for now, later in pairwise(sigmas.unbind()):
            x = heun_step(denoise, x, now, later)
        return x

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

"""Sampler: Heun steps with noise added before each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from upturn.diffusion.base_sampler import BaseSampler, Noise
from upturn.diffusion.samplers._heun_step import heun_step

_MOST = math.sqrt(2) - 1  # the greatest gamma: a step at most doubles the variance of the noise

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise



@dataclass(frozen=True)
class Churn(BaseSampler):
    """Heun steps, before each some noise added (Karras et al. 2022, Algorithm 2; constants of its table 5)."""

    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003

    stochastic: ClassVar[bool] = True
    needs_finite_start: ClassVar[bool] = True

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        for i, (now, later) in enumerate(pairwise(sigmas.unbind())):
            gamma = min(self.s_churn / (len(sigmas) - 1), _MOST) if self.s_min <= now <= self.s_max else 0.0
            raised = now * (1 + gamma)
            if gamma > 0:
                x = x + (raised.square() - now.square()).sqrt() * self.s_noise * noise(i)
            x = heun_step(denoise, x, raised, later)
        return x

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

"""Sampler: DDPM's ancestral sampling, a Gaussian transition per step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from upturn.diffusion.base_sampler import BaseSampler, Noise
from upturn.diffusion.transitions import posterior

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise



@dataclass(frozen=True)
class Ancestral(BaseSampler):
    """DDPM's own sampler: a Gaussian transition per step, the last without noise (Ho et al. 2020, Algorithm 2).

    The only sampler whose steps have log-probs: rollouts of reinforcement learning use it. First order.
    """

    stochastic: ClassVar[bool] = True
    replayable: ClassVar[bool] = True

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        for i, (now, later) in enumerate(pairwise(sigmas.unbind())):
            mean, std = posterior(x, denoise(x, now), now, later)
            x = mean + std * noise(i) if later > 0 else mean
        return x

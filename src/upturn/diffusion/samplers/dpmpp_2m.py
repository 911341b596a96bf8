"""Sampler: DPM-Solver++(2M), second order at one evaluation per step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from upturn.diffusion.base_sampler import BaseSampler, Noise

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise



@dataclass(frozen=True)
class Dpmpp2m(BaseSampler):
    """DPM-Solver++(2M): second order at one evaluation per step (Lu et al. 2022, "DPM-Solver++", Algorithm 2).

    With alpha = 1 the paper's lambda is -log sigma; the first and the last step are of first order.
    """

    order: ClassVar[int] = 2

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        before, step_before = None, None
        for now, later in pairwise(sigmas.unbind()):
            estimate = denoise(x, now)
            if later == 0:
                return estimate
            step = now.log() - later.log()
            target = estimate
            if before is not None and step_before is not None:
                target = estimate + (estimate - before) * step / (2 * step_before)
            x = later / now * x + (1 - later / now) * target
            before, step_before = estimate, step
        return x

"""The base class of diffusion samplers: from noise to samples with a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise

Noise = Callable[[int], "Tensor"]  # standard normal noise (N, ...) of a step


@dataclass(frozen=True)
class BaseSampler:
    """A component of kind "sampler", in the coordinates x = x0 + sigma * noise.

    Fields that the model's sampling settings have, too (``s_churn``), are filled from there.
    """

    order: ClassVar[int] = 1  # the error at the end falls as steps to the power of -order; 1 for stochastic samplers
    stochastic: ClassVar[bool] = False  # whether it draws noise after the start
    replayable: ClassVar[bool] = False  # whether every step but the last draws from transitions.posterior: rollouts
    needs_finite_start: ClassVar[bool] = False  # whether its first step fails where sampling starts at pure noise

    def __call__(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
        """(N, ...) samples.

        denoise  D(x, sigma), an estimate of x0
        x        (N, ...) the start, sigmas[0] * noise
        sigmas   (steps + 1,) falling noise levels, the last 0
        noise    standard normal noise (N, ...) of step i; only stochastic samplers call it
        """
        raise NotImplementedError

    def evaluations(self, steps: int) -> int:
        """How often it calls the denoiser."""
        return steps

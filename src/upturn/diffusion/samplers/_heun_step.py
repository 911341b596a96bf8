"""One step of Heun's method, which two samplers take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from upturn.diffusion.denoiser import Denoise


def heun_step(denoise: Denoise, x: Tensor, now: Tensor, later: Tensor) -> Tensor:
    """x (N, ...) at sigma ``later`` from x at ``now``: the mean of the slopes at both ends; Euler's step to 0."""
    slope = (x - denoise(x, now)) / now
    guess = x + (later - now) * slope
    if later == 0:
        return guess
    return x + (later - now) * (slope + (guess - denoise(guess, later)) / later) / 2

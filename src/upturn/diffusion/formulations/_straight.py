"""Straight paths from data to noise, shared by the rectified flows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from upturn.diffusion.denoiser import Coefficients

if TYPE_CHECKING:
    from torch import Tensor

TIMES = 1000.0  # the networks' time input is 1000 t, as those of diffusers expect


class Straight:
    """``x_t = (1 - t) x0 + t noise``, the network predicts ``noise - x0``, plain MSE; ``sigma = t / (1 - t)`` and
    ``x = x_t / (1 - t)`` (Liu et al. 2023, "Flow straight and fast", eq. 1)."""

    def fitted(self, rms: float) -> Self:
        return self

    def coefficients(self, sigma: Tensor) -> Coefficients:
        into = (1 + sigma).reciprocal()
        t = sigma * into
        return Coefficients(into, -t, into, TIMES * t)

    def weight(self, sigma: Tensor) -> Tensor:
        return ((1 + sigma) / sigma).square()

    def noise_range(self) -> tuple[float, float]:
        return 0.0, TIMES

"""Karras et al. 2022 (EDM), table 1, last column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from upturn.diffusion.denoiser import Coefficients
from upturn.diffusion.noise_levels import normal_quantile, power_sigmas

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Edm:
    """EDM: unit-variance inputs and targets at every noise level, log-normal training noise (Karras et al. 2022).

    Units: sigma in those of the data as the network sees it. ``weight`` makes the loss |F - target|^2 with a target of
    unit variance, so an untrained network (F = 0) costs 1 per dimension at every level.
    """

    sigma_data: float | None = None  # the data's root mean square; None measures it
    p_mean: float = -1.2  # mean and standard deviation of log sigma in training: table 1
    p_std: float = 1.2
    sigma_min: float = 0.002  # table 1
    sigma_max: float = 80.0
    rho: float = 7.0  # equation 5

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"edm: needs 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")
        if self.p_std <= 0 or self.rho <= 0 or (self.sigma_data is not None and self.sigma_data <= 0):
            raise ValueError("edm: p_std, rho and sigma_data must be above 0")

    def fitted(self, rms: float) -> Edm:
        return self if self.sigma_data is not None else replace(self, sigma_data=rms)

    @property
    def _data(self) -> float:
        if self.sigma_data is None:
            raise ValueError("edm: sigma_data is not measured yet; build the model first")
        return self.sigma_data

    def coefficients(self, sigma: Tensor) -> Coefficients:
        total = sigma.square() + self._data**2
        root = total.sqrt()
        return Coefficients(self._data**2 / total, sigma * self._data / root, 1 / root, sigma.log() / 4)

    def weight(self, sigma: Tensor) -> Tensor:
        return (sigma.square() + self._data**2) / (sigma * self._data).square()

    def training_sigma(self, u: Tensor) -> Tensor:
        return (normal_quantile(u) * self.p_std + self.p_mean).exp()

    def sigmas(self, steps: int) -> Tensor:
        return power_sigmas(steps, self.sigma_min, self.sigma_max, self.rho)

    def noise_range(self) -> tuple[float, float]:
        return math.log(self.sigma_min) / 4, math.log(self.sigma_max) / 4

    def scheduler(self) -> Mapping[str, Any]:
        return {
            "_class_name": "EDMEulerScheduler", "sigma_min": self.sigma_min, "sigma_max": self.sigma_max,
            "sigma_data": self._data, "rho": self.rho, "sigma_schedule": "karras", "prediction_type": "epsilon",
        }

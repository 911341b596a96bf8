"""DDPM: the network predicts the noise (Ho et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from upturn.diffusion.denoiser import Coefficients
from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_OFFSET, _CAP = 0.008, 0.999  # Nichol & Dhariwal 2021, section 3.2


@dataclass(frozen=True)
class Epsilon:
    """DDPM: 1,000 discrete times, the network predicts the noise, plain mean squared error (Ho et al. 2020, eq. 14).

    ``sigma_k = sqrt((1 - abar_k) / abar_k)`` and ``x = x_k / sqrt(abar_k)``, so ``c_in`` gives the network the paper's
    x_k and ``c_noise`` its k (between two of the table, by linear interpolation in log sigma).

    Departs from the paper in sampling: it starts at the greatest level up to ``sigma_max``. The tables end at sigma 158
    (linear) and beyond 10^4 (cosine), where the smallest error of the noise is a large one of the data; others clip.
    """

    schedule: Literal["linear", "cosine"] = "linear"  # Ho et al. 2020, section 4; Nichol & Dhariwal 2021, eq. 17
    times: int = 1000  # Ho et al. 2020, section 4
    beta_start: float = 1e-4  # of the linear schedule: section 4
    beta_end: float = 0.02
    sigma_max: float = 80.0  # where sampling starts: Karras et al. 2022, table 1

    def __post_init__(self) -> None:
        if self.times < 2 or not 0 < self.beta_start < self.beta_end < 1:
            raise ValueError("epsilon: needs times >= 2 and 0 < beta_start < beta_end < 1")
        if self.sigma_max <= self.table[0]:
            raise ValueError(f"epsilon: sigma_max must be above the least level, {self.table[0]:.3g}")

    @cached_property
    def table(self) -> Array:
        """(times,) float64, rising: sigma_k."""
        if self.schedule == "linear":
            betas = np.linspace(self.beta_start, self.beta_end, self.times)
        else:
            t = np.arange(self.times + 1) / self.times
            bar = np.cos((t + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], _CAP)
        bar = np.cumprod(1 - betas)
        sigma: Array = np.sqrt((1 - bar) / bar)
        return sigma

    def fitted(self, rms: float) -> Epsilon:
        return self

    def time(self, sigma: Tensor) -> Tensor:
        """k in [0, times - 1], not rounded."""
        import torch

        table = torch.from_numpy(np.log(self.table)).to(sigma.device)
        value = sigma.double().log().clamp(table[0], table[-1])
        upper = torch.searchsorted(table, value).clamp(1, self.times - 1)
        low, high = table[upper - 1], table[upper]
        return (upper - 1 + (value - low) / (high - low)).to(sigma.dtype)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(sigma.new_ones(sigma.shape), -sigma, (1 + sigma.square()).rsqrt(), self.time(sigma))

    def weight(self, sigma: Tensor) -> Tensor:
        return sigma.square().reciprocal()

    def training_sigma(self, u: Tensor) -> Tensor:
        import torch

        table = torch.from_numpy(self.table).to(u.device, u.dtype)
        return table[(u * self.times).long().clamp(max=self.times - 1)]

    def sigmas(self, steps: int) -> Tensor:
        import torch

        count = int(np.searchsorted(self.table, self.sigma_max, side="right"))
        if not 1 <= steps <= count:
            raise ValueError(f"epsilon: steps must be between 1 and {count}, got {steps}")
        at = np.linspace(count - 1, 0, steps).round().astype(int)
        return torch.from_numpy(np.append(self.table[at], 0.0)).float()

    def noise_range(self) -> tuple[float, float]:
        return 0.0, float(self.times - 1)

    def scheduler(self) -> Mapping[str, Any]:
        return {
            "_class_name": "DDPMScheduler", "num_train_timesteps": self.times, "prediction_type": "epsilon",
            "beta_schedule": "linear" if self.schedule == "linear" else "squaredcos_cap_v2",
            "beta_start": self.beta_start, "beta_end": self.beta_end, "clip_sample": True,
            "variance_type": "fixed_small", "timestep_spacing": "linspace",
        }

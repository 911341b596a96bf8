"""A table of noise levels, one per discrete time, as in DDPM: shared by noise and velocity prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_OFFSET, _CAP = 0.008, 0.999  # Nichol & Dhariwal 2021, section 3.2
_NAMES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2"}  # as diffusers has them


@dataclass(frozen=True)
class Discrete:
    """``sigma_k = sqrt((1 - abar_k) / abar_k)`` and ``x = x_k / sqrt(abar_k)``: ``c_in`` gives the network the x_k of
    the papers and ``c_noise`` its k (between two of the table, by linear interpolation in log sigma).

    ``spacing`` says which times a sampler visits: "even" is from the greatest level up to ``sigma_max`` to the least;
    the others are those of the schedulers of diffusers of this name, "leading" with its ``offset`` (steps_offset).
    """

    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"  # Ho et al. 2020, section 4; Rombach et al. 2022,
    # their code: linear in the root of beta; Nichol & Dhariwal 2021, eq. 17
    times: int = 1000  # Ho et al. 2020, section 4
    beta_start: float = 1e-4  # of the linear schedule: section 4
    beta_end: float = 0.02
    sigma_max: float = 80.0  # where even sampling starts: Karras et al. 2022, table 1
    spacing: Literal["even", "leading", "linspace", "trailing"] = "even"
    offset: int = 0

    prediction: ClassVar[str]  # what the network gives, as diffusers names it

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        if self.times < 2 or not 0 < self.beta_start < self.beta_end < 1:
            raise ValueError(f"{name}: needs times >= 2 and 0 < beta_start < beta_end < 1")
        if self.sigma_max <= self.table[0]:
            raise ValueError(f"{name}: sigma_max must be above the least level, {self.table[0]:.3g}")

    @cached_property
    def table(self) -> Array:
        """(times,) float64, rising: sigma_k."""
        if self.schedule == "linear":
            betas = np.linspace(self.beta_start, self.beta_end, self.times)
        elif self.schedule == "scaled_linear":
            betas = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.times) ** 2
        else:
            t = np.arange(self.times + 1) / self.times
            bar = np.cos((t + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], _CAP)
        bar = np.cumprod(1 - betas)
        sigma: Array = np.sqrt((1 - bar) / bar)
        return sigma

    def fitted(self, rms: float) -> Self:
        return self

    def time(self, sigma: Tensor) -> Tensor:
        """k in [0, times - 1], not rounded."""
        import torch

        table = torch.from_numpy(np.log(self.table)).to(sigma.device)
        value = sigma.double().log().clamp(table[0], table[-1])
        upper = torch.searchsorted(table, value).clamp(1, self.times - 1)
        low, high = table[upper - 1], table[upper]
        return (upper - 1 + (value - low) / (high - low)).to(sigma.dtype)

    def training_sigma(self, u: Tensor) -> Tensor:
        import torch

        table = torch.from_numpy(self.table).to(u.device, u.dtype)
        return table[(u * self.times).long().clamp(max=self.times - 1)]

    def sigmas(self, steps: int) -> Tensor:
        import torch

        return torch.from_numpy(np.append(self.table[self._visited(steps)], 0.0)).float()

    def _visited(self, steps: int) -> Array:
        """(steps,) falling times."""
        even = self.spacing == "even"
        count = int(np.searchsorted(self.table, self.sigma_max, side="right")) if even else self.times - self.offset
        if not 1 <= steps <= count:
            raise ValueError(f"{type(self).__name__.lower()}: steps must be between 1 and {count}, got {steps}")
        at: Array
        if even:
            at = np.linspace(count - 1, 0, steps)
        elif self.spacing == "linspace":
            at = np.linspace(self.times - 1, 0, steps)
        elif self.spacing == "leading":
            at = np.arange(steps)[::-1] * (self.times // steps) + self.offset
        else:
            at = self.times - np.arange(steps) * (self.times / steps) - 1
        rounded: Array = at.round().astype(int)
        return rounded

    def noise_range(self) -> tuple[float, float]:
        return 0.0, float(self.times - 1)

    def scheduler(self) -> Mapping[str, Any]:
        spacing = {} if self.spacing == "even" else {"steps_offset": self.offset}
        return {
            "_class_name": "DDPMScheduler", "num_train_timesteps": self.times, "prediction_type": self.prediction,
            "beta_schedule": _NAMES[self.schedule], "beta_start": self.beta_start, "beta_end": self.beta_end,
            "clip_sample": True, "variance_type": "fixed_small",
            "timestep_spacing": "linspace" if self.spacing == "even" else self.spacing, **spacing,
        }

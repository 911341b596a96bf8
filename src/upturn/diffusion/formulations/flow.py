"""Rectified flow: the network predicts the velocity from data to noise (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from upturn.diffusion.formulations._straight import TIMES, Straight
from upturn.diffusion.noise_levels import inside, normal_quantile, power_sigmas

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Flow(Straight):
    """Rectified flow: straight paths ``x_t = (1 - t) x0 + t noise``, the network predicts ``noise - x0``, plain MSE.

    ``sigma = t / (1 - t)`` and ``x = x_t / (1 - t)`` (Liu et al. 2023, "Flow straight and fast", eq. 1). A logit-normal
    t (Esser et al. 2024, section 3.1) is a log-normal sigma. t = 1 would be sigma without bound: levels are kept in
    [sigma_min, sigma_max]. Departs from the paper in sampling: levels are even in sigma^(1/rho), not in t, which
    measured better with every sampler and which second-order steps in these coordinates need.
    """

    time: Literal["logit_normal", "uniform"] = "logit_normal"
    mean: float = 0.0  # of the logit of t: Esser et al. 2024, rf/lognorm(0.00, 1.00), the best of their table 1
    std: float = 1.0
    sigma_min: float = 0.01  # t = 0.0099: about one step of 8 bits in [-1, 1]
    sigma_max: float = 80.0  # t = 0.988; this and rho: Karras et al. 2022, table 1
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max or min(self.std, self.rho) <= 0:
            raise ValueError("flow: needs 0 < sigma_min < sigma_max, and std and rho above 0")

    def training_sigma(self, u: Tensor) -> Tensor:
        if self.time == "uniform":
            sigma = inside(u) / (1 - inside(u))
        else:
            sigma = (normal_quantile(u) * self.std + self.mean).exp()
        return sigma.clamp(self.sigma_min, self.sigma_max)

    def sigmas(self, steps: int) -> Tensor:
        return power_sigmas(steps, self.sigma_min, self.sigma_max, self.rho)

    def scheduler(self) -> Mapping[str, Any]:
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": int(TIMES), "shift": 1.0}

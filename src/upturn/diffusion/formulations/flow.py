"""Rectified flow: the network predicts the velocity from data to noise (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from upturn.diffusion.denoiser import Coefficients
from upturn.diffusion.formulations._helpers import inside, normal_quantile

if TYPE_CHECKING:
    from torch import Tensor

_SCALE = 1000.0  # what networks are told is 1000 t, as those of diffusers expect


@dataclass(frozen=True)
class Flow:
    """Rectified flow: straight paths ``x_t = (1 - t) x0 + t noise``, the network predicts ``noise - x0``, plain MSE.

    ``sigma = t / (1 - t)`` and ``x = x_t / (1 - t)`` (Liu et al. 2023, "Flow straight and fast", eq. 1). A logit-normal
    t (Esser et al. 2024, section 3.1) is a log-normal sigma. Times are kept in [t_min, t_max]: t = 1 is sigma without
    bound.
    """

    time: Literal["logit_normal", "uniform"] = "logit_normal"
    mean: float = 0.0  # of the logit of t: Esser et al. 2024, rf/lognorm(0.00, 1.00), the best of their table 1
    std: float = 1.0
    t_min: float = 1e-3  # 8-bit pictures show nothing below 1/255
    t_max: float = 0.998  # sigma = 499: the data are 0.2% of what is seen

    def __post_init__(self) -> None:
        if not 0 < self.t_min < self.t_max < 1 or self.std <= 0:
            raise ValueError("flow: needs 0 < t_min < t_max < 1 and std > 0")

    def fitted(self, rms: float) -> Flow:
        return self

    def coefficients(self, sigma: Tensor) -> Coefficients:
        into = (1 + sigma).reciprocal()
        t = sigma * into
        return Coefficients(into, -t, into, _SCALE * t)

    def weight(self, sigma: Tensor) -> Tensor:
        return ((1 + sigma) / sigma).square()

    def training_sigma(self, u: Tensor) -> Tensor:
        t = inside(u) if self.time == "uniform" else (normal_quantile(u) * self.std + self.mean).sigmoid()
        t = t.clamp(self.t_min, self.t_max)
        return t / (1 - t)

    def sigmas(self, steps: int) -> Tensor:
        import torch

        if steps < 1:
            raise ValueError(f"a sampler needs at least one step, got {steps}")
        t = torch.linspace(self.t_max, 0, steps + 1, dtype=torch.float64)
        return (t / (1 - t)).float()

    def noise_range(self) -> tuple[float, float]:
        return 0.0, _SCALE

    def scheduler(self) -> Mapping[str, Any]:
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": int(_SCALE), "shift": 1.0}

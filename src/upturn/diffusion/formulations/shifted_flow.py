"""Rectified flow as in Stable Diffusion 3 and Flux: from t = 1, times shifted towards the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from upturn.diffusion.formulations._straight import TIMES, Straight
from upturn.diffusion.noise_levels import normal_quantile
from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_END = 1e8  # sigma used for t = 1: 1 - t is below float32's resolution there, and squares do not overflow


@dataclass(frozen=True)
class ShiftedFlow(Straight):
    """Rectified flow over 1,000 times, ``t -> s t / (1 + (s - 1) t)`` (Esser et al. 2024, "Scaling rectified flow
    transformers", eq. 23): larger images need more noise to be lost in it.

    ``shift`` is of sampling, ``training_shift`` of training; a scheduler of diffusers that shifts by resolution shifts
    in sampling alone. Sampling begins at t = 1, even in the time before the shift, and ends one step before 0: at
    ``last`` "even" at t = 1/steps, as Flux does; at "table" at the least of the 1,000 (shifted) times, as SD3 does.
    """

    shift: float = 3.0  # Esser et al. 2024, section 5.3.2, at 1024 x 1024
    training_shift: float = 3.0
    time: Literal["logit_normal", "uniform"] = "logit_normal"  # rf/lognorm(0.00, 1.00), the best of their table 1
    last: Literal["table", "even"] = "table"

    def __post_init__(self) -> None:
        if min(self.shift, self.training_shift) <= 0:
            raise ValueError("shifted_flow: shift and training_shift must be above 0")

    def training_sigma(self, u: Tensor) -> Tensor:
        import torch

        if self.time == "logit_normal":
            u = normal_quantile(u).sigmoid()
        number = (u.double() * TIMES).floor().clamp(max=TIMES - 1)
        t = _shifted((TIMES - number).numpy() / TIMES, self.training_shift)
        return torch.from_numpy(_levels(t)).float()

    def sigmas(self, steps: int) -> Tensor:
        import torch

        if steps < 1:
            raise ValueError(f"shifted_flow: a sampler needs at least one step, got {steps}")
        least = 1 / steps if self.last == "even" else float(_shifted(np.array(1 / TIMES), self.shift))
        t = _shifted(np.linspace(1.0, least, steps), self.shift)
        return torch.from_numpy(np.append(_levels(t), 0.0)).float()

    def scheduler(self) -> Mapping[str, Any]:
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": int(TIMES), "shift": self.shift,
        }


def _shifted(t: Array, shift: float) -> Array:
    moved: Array = shift * t / (1 + (shift - 1) * t)
    return moved


def _levels(t: Array) -> Array:
    levels: Array = t / np.maximum(1 - t, 1 / _END)
    return levels

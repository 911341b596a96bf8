"""Every weight of the model is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from upturn.protocols import Trainable


@dataclass(frozen=True)
class Full:
    """All weights are trained; the reference of a stage is a frozen copy of the model at its entry."""

    def attach(self, model: Trainable) -> None:
        for parameter in model.module.parameters():
            parameter.requires_grad_(True)

    def reference(self, model: Trainable) -> Trainable:
        frozen = copy.copy(model)
        frozen.module = copy.deepcopy(model.module).requires_grad_(False).eval()
        return frozen

    def parameters(self, model: Trainable) -> Iterable[torch.nn.Parameter]:
        return [p for p in model.module.parameters() if p.requires_grad]

    def regulariser(self, model: Trainable) -> torch.Tensor | None:
        return None

    def after_step(self, model: Trainable, step: int) -> None:
        return None

    def merge(self, model: Trainable) -> None:
        return None

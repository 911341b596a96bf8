"""Full fine-tuning: every weight of the model is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.adapter_layers import injection as adapters
from upturn.errors import UserError
from upturn.protocols import Adapter, Trainable


@dataclass(frozen=True)
class Full(Adapter):
    """All weights are trained, including adapters of earlier stages; the reference is a frozen copy."""

    trains_all: ClassVar[bool] = True

    def attach(self, model: Trainable, total_steps: int, key: int) -> None:
        model.module.requires_grad_(False)
        for parameter in adapters.weights(model.module):
            if not parameter.is_floating_point():
                raise UserError("the weights are quantized, and cannot be trained", where="adapter",
                                fix="Train an adapter ('adapter: {name: lora}'), or leave 'quantization:' out.")
            parameter.requires_grad_(True)

    def reference(self, model: Trainable) -> Trainable:
        frozen = copy.copy(model)
        frozen.module = copy.deepcopy(model.module).requires_grad_(False).eval()
        return frozen

    def parameters(self, model: Trainable) -> Iterable[torch.nn.Parameter]:
        return [p for p in model.module.parameters() if p.requires_grad]

    def merge(self, model: Trainable) -> None:
        adapters.merge(adapters.inner(model.module))

"""The optimizer of a training: building it from the recipe, and its state as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from upturn.config import components
from upturn.config.schema import Training
from upturn.protocols import OptimizerFactory

Parameters = Sequence[torch.nn.Parameter]


def build_optimizer(spec: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """The one that the recipe names, at the training's learning rate and weight decay.

    Raises UserError where a library that it needs is not installed.
    """
    factory: OptimizerFactory = components.make("optimizer", spec.optimizer, "optimizer")
    return factory.build(parameters, spec.learning_rate, spec.weight_decay)


def tensors(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Tensor]:
    """Its state by "place.name", place that of the parameter; a count that is a plain number becomes a tensor."""
    return {
        f"{place}.{name}": torch.as_tensor(value)
        for place, parameter in enumerate(parameters) for name, value in optimizer.state.get(parameter, {}).items()
    }


def restore(optimizer: torch.optim.Optimizer, parameters: Parameters, known: Mapping[str, Tensor]) -> None:
    """Restores the state of ``tensors``; the step counter keeps its device, moments follow their parameter."""
    for name, value in known.items():
        place, _, what = name.partition(".")
        parameter = parameters[int(place)]
        counted = value.ndim == 0 and not value.is_floating_point()
        optimizer.state[parameter][what] = int(value) if counted else value.to(parameter.device)

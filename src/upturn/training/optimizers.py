"""The optimiser of a training: AdamW, or AdamW whose moments take a quarter of the memory; and its state as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from upturn.config.schema import Training
from upturn.errors import UserError

Parameters = Sequence[torch.nn.Parameter]


def optimiser(spec: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """As the recipe names it, at the training's learning rate and weight decay.

    Raises UserError where a library that it needs is not there.
    """
    return _MAKERS[spec.optimizer](spec, parameters)


def _adamw(spec: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """Loshchilov & Hutter 2019, fused: one call for all weights."""
    return torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def _adamw_8bit(spec: Training, parameters: Parameters) -> torch.optim.Optimizer:
    """Dettmers et al. 2022, "8-bit optimizers via block-wise quantization", section 2; small weights keep 32 bits."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise UserError(
            "the optimizer 'adamw_8bit' needs bitsandbytes, which is not installed", where="optimizer",
            fix="pip install 'upturn[eight-bit]', or leave 'optimizer:' out.",
        ) from error
    made: torch.optim.Optimizer = AdamW8bit(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    return made


_MAKERS: dict[str, Callable[[Training, Parameters], torch.optim.Optimizer]] = {
    "adamw": _adamw, "adamw_8bit": _adamw_8bit,
}


def tensors(made: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Tensor]:
    """Its state by "place.name", place that of the parameter; a count that is a plain number becomes a tensor."""
    return {
        f"{place}.{name}": torch.as_tensor(value)
        for place, parameter in enumerate(parameters) for name, value in made.state.get(parameter, {}).items()
    }


def restore(made: torch.optim.Optimizer, parameters: Parameters, known: Mapping[str, Tensor]) -> None:
    """What ``tensors`` gave; the step counter stays where the optimiser made it, moments follow their parameter."""
    for name, value in known.items():
        place, _, what = name.partition(".")
        parameter = parameters[int(place)]
        counted = value.ndim == 0 and not value.is_floating_point()
        made.state[parameter][what] = int(value) if counted else value.to(parameter.device)

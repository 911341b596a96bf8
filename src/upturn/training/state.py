"""The mutable state of a training, saved in checkpoints: model, optimizer, EMA and history."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch

from upturn.protocols import Trainable
from upturn.training.ema import Ema
from upturn.training.history import History


@dataclass(eq=False)
class TrainingState:
    """``parameters`` are the trained ones, in the order in which the optimizer and the EMA hold them."""

    model: Trainable
    parameters: Sequence[torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    history: History = field(default_factory=History)

    def sampled_weights(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that the stage will hand on: the EMA where there is one."""
        return self.ema.applied() if self.ema else nullcontext()

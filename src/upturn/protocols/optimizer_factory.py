"""Protocols of optimizers and of learning-rate schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch


class OptimizerFactory(Protocol):
    """Builds the optimizer of a training; its fields are hyperparameters beside learning rate and weight decay."""

    state_bytes: ClassVar[float] = 8.0
    """Bytes that it keeps for each trained weight: two moments of 4."""

    def build(
        self, parameters: Sequence[torch.nn.Parameter], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Raises UserError where a library that it needs is not installed."""
        ...


class Schedule(Protocol):
    """How the learning rate changes after the warm-up."""

    def factor(self, done: float) -> float:
        """What the learning rate is multiplied by when the share ``done`` in [0, 1) of the steps is done."""
        ...

"""Base class of adapters: which weights a stage trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from upturn.protocols.component import Component
from upturn.protocols.model import Trainable

if TYPE_CHECKING:
    import torch


class Adapter(Component):
    """Base class of adapters: which weights a stage trains, and the model at its entry."""

    trains_all: ClassVar[bool] = False
    """Whether it trains the model's own weights, without an adapter; a report then does not mention it."""

    def refuses(self, model: Trainable) -> str:
        """Why it cannot adapt this model; "" where it can, or where that is not known before the model is built."""
        return ""

    def attach(self, model: Trainable, total_steps: int, key: int) -> None:
        """Sets which weights require gradients, and adds layers where the adapter has some."""
        raise NotImplementedError

    def reference(self, model: Trainable) -> Trainable:
        """The model at the entry of the stage."""
        raise NotImplementedError

    def parameters(self, model: Trainable) -> Iterable[torch.nn.Parameter]:
        """The weights that the optimizer trains."""
        raise NotImplementedError

    def regulariser(self, model: Trainable) -> torch.Tensor | None:
        """A term that is added to the loss; None for none."""
        return None

    def before_step(self, model: Trainable, step: int, loss: Callable[[int], float]) -> None:
        """Called before the forward pass of step ``step``, from 0.

        ``loss(n)`` is the mean loss of the first n examples of the step's batch with the weights as they are, without
        dropout; it is the same in all processes.
        """

    def after_step(self, model: Trainable, step: int, learning_rate: float) -> None:
        """Called after each optimizer step, counted from 1, with the learning rate of that step."""

    def finish(self, model: Trainable) -> None:
        """Called once after the last step of a stage, before an EMA replaces the weights."""

    def merge(self, model: Trainable) -> None:
        """Adds the adapter's layers to the weights of the model, for export."""
        raise NotImplementedError

"""Base class of adapters: which weights a stage trains."""

from __future__ import annotations

from collections.abc import Iterable
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

    def after_step(self, model: Trainable, step: int) -> None:
        """Called after each optimizer step."""

    def merge(self, model: Trainable) -> None:
        """Adds the adapter's layers to the weights of the model, for export."""
        raise NotImplementedError

"""The model at the entry of a stage, in the memory of the model that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from upturn.adapter_layers import injection as adapters

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class AtEntry(nn.Module):
    """``module`` at entry: other adapters on, evaluation mode (no dropout). It never changes ``module``'s mode."""

    def __init__(self, module: PreTrainedModel, now: Sequence[str], before: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.now, self.before = list(now), list(before)
        self.injected = [layer for _, layer in adapters.layers(module)]
        self.training = False

    def train(self, mode: bool = True) -> AtEntry:
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        busy = [part for part in self.module.modules() if part.training]
        adapters.activate(self.injected, self.before)
        for part in busy:
            part.training = False
        try:
            return self.module(*args, **kwargs)
        finally:
            adapters.activate(self.injected, self.now)
            for part in busy:
                part.training = True

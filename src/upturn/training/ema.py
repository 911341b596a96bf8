"""The running average of the weights (EMA): what is sampled, evaluated and saved where a stage asks for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class Average:
    """Exponential average with the warm-up min(decay, (1 + n) / (10 + n)) of TensorFlow's ExponentialMovingAverage.

    The decay of step n is closed form in n, so that a resumed stage goes on exactly.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = list(parameters)
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimiser step ``step``, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.data for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average stands in the model inside, the trained weights again after."""
        own = [p.detach().clone() for p in self.parameters]
        self.settle()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([p.data for p in self.parameters], own)

    @torch.no_grad()
    def settle(self) -> None:
        """The average becomes the model."""
        torch._foreach_copy_([p.data for p in self.parameters], self.values)

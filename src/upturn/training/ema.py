"""Exponential moving average (EMA) of the weights, which a stage samples, evaluates and saves if it configures one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class Ema:
    """Exponential average with the warm-up min(decay, (1 + n) / (10 + n)) of TensorFlow's ExponentialMovingAverage.

    The decay of step n is closed form in n, so that a resumed stage continues exactly.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.parameters = list(parameters)
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After optimizer step ``step``, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.data for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards the trained ones again."""
        trained = [p.detach().clone() for p in self.parameters]
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_([p.data for p in self.parameters], trained)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """The averaged weights replace the trained ones."""
        torch._foreach_copy_([p.data for p in self.parameters], self.values)

"""Forward passes of a training: the policy and its reference, with the same random draw and mixed precision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from accelerate import Accelerator

from upturn.protocols import Policy, Trainable
from upturn.training.narrow_passes import NarrowPasses
from upturn.types import Batch, Draw, Outputs


@dataclass(frozen=True)
class ForwardPass:
    """``rollouts``: log-probs are those of a rollout's actions, which need no random draw."""

    accelerator: Accelerator
    rollouts: bool
    narrow: NarrowPasses = field(default_factory=NarrowPasses)

    def draw(self, model: Trainable, batch: Batch, key: int, start: int) -> Draw | None:
        """Noise and times for examples from ``start`` of the global batch; None where the model needs none."""
        return None if self.rollouts else model.draw(batch, key, start)

    def __call__(self, model: Trainable, batch: Batch, draw: Draw | None) -> Outputs:
        with self.narrow(model.module), self.accelerator.autocast():
            return cast(Policy, model).act(batch) if self.rollouts else model.forward(batch, draw)

    @torch.no_grad()
    def no_grad(self, model: Trainable, batch: Batch, key: int, start: int) -> Outputs:
        """Without gradient, with the random draw of ``key``."""
        return self(model, batch.to(self.accelerator.device), self.draw(model, batch, key, start))

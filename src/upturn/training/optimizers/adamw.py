"""Optimizer: AdamW with moments in 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upturn.protocols import OptimizerFactory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Adamw(OptimizerFactory):
    """AdamW (Loshchilov & Hutter, ICLR 2019, Algorithm 2), torch's fused version: one call for all weights."""

    def build(
        self, parameters: Sequence[torch.nn.Parameter], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)

"""Optimizer: AdamW with moments in 8 bits, a quarter of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from upturn.errors import UserError
from upturn.protocols import OptimizerFactory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Adamw8bit(OptimizerFactory):
    """AdamW whose moments are quantized block by block (Dettmers et al. 2022, "8-bit optimizers", section 2).

    Weights of fewer than 4,096 elements keep moments in 32 bits. Needs bitsandbytes.
    """

    state_bytes: ClassVar[float] = 2.0  # two moments of 1

    def build(
        self, parameters: Sequence[torch.nn.Parameter], learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise UserError(
                "the optimizer 'adamw_8bit' needs bitsandbytes, which is not installed", where="optimizer",
                fix="pip install 'upturn[eight-bit]', or leave 'optimizer:' out.",
            ) from error
        optimizer: torch.optim.Optimizer = AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)
        return optimizer

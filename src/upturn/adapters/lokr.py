"""LoKr: each layer's update is the Kronecker product of a small matrix and one of low rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from upturn.adapters._low_rank import LowRank

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class Lokr(LowRank):
    """W + (alpha / rank) C (x) (A B), with C zero at first: linear and convolution layers.

    Yeh et al. 2024, "Navigating text-to-image customization: From LyCORIS fine-tuning to model evaluation", section
    3.2. Each side of a layer is factored into two; where the second is no wider than twice the rank it is a
    whole matrix. No dropout of the input in this format.
    """

    rank: int = 8
    alpha: int | None = None  # the scale is alpha / rank; None: the rank
    factor: int = -1  # the greatest side of C; -1: as near to the square root of the layer's as divides it
    adapter_name: str = "lokr"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dropout:
            raise ValueError("this adapter has no dropout: leave it out")
        if self.factor != -1 and self.factor < 1:
            raise ValueError("factor must be at least 1, or -1 for the square root")

    def kinds(self) -> tuple[type[nn.Module], ...]:
        return nn.Linear, nn.Conv1d, nn.Conv2d

    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        from peft import LoKrConfig

        return LoKrConfig(
            r=self.rank, alpha=self.alpha or self.rank, decompose_factor=self.factor, **common
        )

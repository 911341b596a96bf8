"""LoHa: each layer's update is the elementwise product of two low-rank matrices, of up to the squared rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from upturn.adapters._low_rank import LowRank

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class Loha(LowRank):
    """W + (alpha / rank) (A1 B1) * (A2 B2), with B2 zero at first: linear and convolution layers.

    Hyeon-Woo et al. 2022, "FedPara: Low-rank Hadamard product for communication-efficient federated learning",
    proposition 1; a convolution is taken as the matrix of its weights. The format of LyCORIS (Yeh et al. 2024,
    "Navigating text-to-image customization"), which has no dropout of the input.
    """

    rank: int = 8
    alpha: int | None = None  # the scale is alpha / rank; None: the rank, as the paper has no scale
    adapter_name: str = "loha"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dropout:
            raise ValueError("this adapter has no dropout: leave it out")

    def kinds(self) -> tuple[type[nn.Module], ...]:
        return nn.Linear, nn.Conv1d, nn.Conv2d

    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        from peft import LoHaConfig

        return LoHaConfig(r=self.rank, alpha=self.alpha or self.rank, **common)

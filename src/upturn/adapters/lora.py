"""LoRA: two low-rank matrices beside each layer are trained, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from upturn.adapters._low_rank import LowRank
from upturn.adapters._targets import linear_kinds

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass(frozen=True)
class Lora(LowRank):
    """W + (alpha / rank) B A, with A (rank, in) random and B (out, rank) zero at first: linear and convolution layers.

    Hu et al. 2021, "LoRA: Low-rank adaptation of large language models", section 4.1. On all linear layers, as Biderman
    et al. 2024 ("LoRA learns less and forgets less") find best; the paper adapts attention only.
    """

    adapter_name: str = "lora"

    def kinds(self) -> tuple[type[nn.Module], ...]:
        return (*linear_kinds(), nn.Conv1d, nn.Conv2d, nn.Conv3d)

    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(r=self.rank, lora_alpha=self.alpha or 2 * self.rank, lora_dropout=self.dropout, **common)

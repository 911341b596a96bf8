"""AdaLoRA: layers share a budget of ranks, and the least important ranks are pruned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from upturn.adapter_layers import injection as adapters
from upturn.adapters import _rank_importance
from upturn.adapters._low_rank import LowRank
from upturn.adapters._targets import linear_kinds
from upturn.protocols import Trainable

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Adalora(LowRank):
    """W + (alpha / initial rank) P E Q with E diagonal, whose ranks are pruned to ``rank`` a layer on average.

    Zhang et al. 2023, "AdaLoRA: Adaptive budget allocation for parameter-efficient fine-tuning". Every layer begins
    with ``initial_rank``; after the warm-up the budget falls as a cubic of the step, and for the last part of a stage
    the ranks stay as they are. Layers narrower than ``initial_rank`` have no such decomposition and are left out. A
    stage that continues a pruned adapter keeps its ranks. For linear layers and convolutions in two dimensions.
    """

    rank: int = 8  # on average, in the end
    initial_rank: int | None = None  # None: 1.5 times the rank, as in the paper (section 4.1)
    warmup: float = 0.1  # share of the steps before the first rank is pruned
    settle: float = 0.3  # share of the steps after the last is pruned; the paper sets both by the task
    orthogonality: float = 0.1  # weight of the penalty, the paper's gamma (there 0.1 for most tasks)
    adapter_name: str = "adalora"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least < self.rank:
            raise ValueError("initial_rank must be at least rank")
        if min(self.warmup, self.settle) < 0 or self.warmup + self.settle >= 1:
            raise ValueError("warmup and settle must be shares of the steps, together below 1")
        if self.orthogonality < 0:
            raise ValueError("orthogonality must not be below 0")

    @property
    def least(self) -> int:
        return math.ceil(1.5 * self.rank) if self.initial_rank is None else self.initial_rank

    def kinds(self) -> tuple[type[nn.Module], ...]:
        return (*linear_kinds(), nn.Conv2d)

    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        from peft import AdaLoraConfig

        first = min(round(self.warmup * total_steps), total_steps - 1)
        return AdaLoraConfig(
            init_r=self.least, target_r=self.rank, lora_alpha=self.alpha or 2 * self.least, tinit=first,
            tfinal=min(round(self.settle * total_steps), total_steps - first - 1), total_step=total_steps,
            orth_reg_weight=self.orthogonality, lora_dropout=self.dropout, **common,
        )

    def begin(self, module: PreTrainedModel) -> None:
        config = module.peft_config[self.adapter_name]
        for _, layer in _rank_importance.ranked(module, self.adapter_name):
            if config.rank_pattern is None:  # a pruned adapter keeps its ranks
                layer.importance = _rank_importance.Importance(layer, self.adapter_name)

    def regulariser(self, model: Trainable) -> torch.Tensor | None:
        found = _rank_importance.ranked(adapters.inner(model.module), self.adapter_name)
        if not self.orthogonality:
            return None
        loss = _rank_importance.orthogonality([layer for _, layer in found], self.adapter_name)
        return None if loss is None else self.orthogonality * loss

    def after_step(self, model: Trainable, step: int, learning_rate: float) -> None:
        """Importance from the step's gradients, which must not be cleared yet; then the budget of this step."""
        module = adapters.inner(model.module)
        config = module.peft_config[self.adapter_name]
        found = _rank_importance.ranked(module, self.adapter_name)
        layers = [layer for _, layer in found if hasattr(layer, "importance")]
        if not layers:
            return
        last = config.total_step - config.tfinal
        if step <= last:
            _rank_importance.observe(layers, self.adapter_name)
            all_ranks, target = sum(len(layer.lora_E[self.adapter_name]) for layer in layers), self.rank * len(layers)
            _rank_importance.choose(layers, _rank_importance.budget(step, config.tinit, last, all_ranks, target))
        _rank_importance.prune(layers, self.adapter_name)
        if step >= last and config.rank_pattern is None:
            config.rank_pattern = {f"{path}.lora_E": layer.importance.kept.tolist() for path, layer in found}

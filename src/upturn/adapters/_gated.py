"""The base of adapters with a gate on each rank: layers in the form of `peft`'s AdaLoRA, whose values are the gates."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from upturn.adapter_layers import injection as adapters
from upturn.adapters import _rank_importance
from upturn.adapters._low_rank import LowRank
from upturn.adapters._targets import linear_kinds

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Gated(LowRank):
    """W + scale · B diag(g) A: A (ranks, in) random and B (out, ranks) zero at first, gates g (ranks,), scale a number.

    A rank whose gate is zero adds nothing and has no gradient in A and B; those that are zero at the end of a stage
    are not in the saved adapter. For linear layers and convolutions in two dimensions.
    """

    learned: ClassVar[bool] = False
    """Whether the optimizer trains the gates."""

    @property
    def ranks(self) -> int:
        """Ranks of a layer, those with a zero gate counted."""
        return self.rank

    @property
    @abstractmethod
    def gates(self) -> list[float]:
        """The gates of a new adapter's layer, (ranks,)."""

    @property
    @abstractmethod
    def scale(self) -> float:
        """What multiplies B diag(g) A."""

    def kinds(self) -> tuple[type[nn.Module], ...]:
        return (*linear_kinds(), nn.Conv2d)

    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.ranks, target_r=self.rank, lora_alpha=self.scale * self.ranks, tinit=0, tfinal=0,
            total_step=total_steps, orth_reg_weight=0.0, lora_dropout=self.dropout, **common,
        )

    def layers(self, module: PreTrainedModel) -> list[tuple[str, Any]]:
        """(path, layer) of each layer that the adapter is on."""
        return _rank_importance.ranked(adapters.inner(module), self.adapter_name)

    def values(self, module: PreTrainedModel) -> list[nn.Parameter]:
        """Each layer's gates, (ranks, 1)."""
        return [layer.lora_E[self.adapter_name] for _, layer in self.layers(module)]

    @torch.no_grad()
    def first(self, module: PreTrainedModel) -> None:
        name = self.adapter_name
        for _, layer in self.layers(module):
            _random(layer.lora_A[name])
            nn.init.zeros_(layer.lora_B[name])
            layer.lora_E[name].copy_(torch.tensor(self.gates)[:, None])

    @torch.no_grad()
    def continued(self, module: PreTrainedModel) -> None:
        """Ranks that an earlier stage has removed are there again, at zero: what they add, and what B adds to them."""
        name = self.adapter_name
        config = module.peft_config[name]
        config.rank_pattern = None
        for _, layer in self.layers(module):
            a, e, b = (getattr(layer, part)[name].detach().clone() for part in ("lora_A", "lora_E", "lora_B"))
            if len(e) == self.ranks:
                continue
            layer.update_layer(name, self.ranks, config.lora_alpha, config=config)
            adapters.widen(module, name)
            _random(layer.lora_A[name])
            layer.lora_A[name][: len(e)] = a
            layer.lora_E[name].zero_()[: len(e)] = e
            layer.lora_B[name].zero_()[:, : len(e)] = b

    def begin(self, module: PreTrainedModel) -> None:
        for gates in self.values(module):
            gates.requires_grad_(self.learned)

    def remove(self, module: PreTrainedModel) -> None:
        """Ranks whose gate is zero now are left out where the adapter is saved."""
        inner = adapters.inner(module)
        inner.peft_config[self.adapter_name].rank_pattern = {
            f"{path}.lora_E": (layer.lora_E[self.adapter_name].detach()[:, 0] != 0).tolist()
            for path, layer in self.layers(inner)
        }


def _random(weight: Tensor) -> None:
    """LoRA's first A, as `peft` draws it."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

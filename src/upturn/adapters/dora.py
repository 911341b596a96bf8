"""DoRA: LoRA for the direction of each row of a weight, and a trained magnitude per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from upturn.adapter_layers import injection as adapters
from upturn.adapters._low_rank import LowRank
from upturn.adapters._targets import linear_kinds
from upturn.errors import UserError

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Dora(LowRank):
    """m (W + (alpha / rank) B A) / |W + (alpha / rank) B A|, a norm and a trained magnitude m a row of the output.

    Liu et al. 2024, "DoRA: Weight-decomposed low-rank adaptation", equation 5; the norm is a constant to the gradient
    (section 4.3). On a model with earlier adapters the norm is that of the base with this adapter, and the
    scaled weight includes all earlier adapters, as in `peft`.
    """

    adapter_name: str = "dora"

    def kinds(self) -> tuple[type[nn.Module], ...]:
        return (*linear_kinds(), nn.Conv1d, nn.Conv2d, nn.Conv3d)

    def config(self, common: dict[str, Any], total_steps: int) -> PeftConfig:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha or 2 * self.rank, use_dora=True, lora_dropout=self.dropout, **common
        )

    def check(self, module: PreTrainedModel, paths: list[str]) -> None:
        taken = {path for path, _ in adapters.layers(module)}
        if self.dropout and taken & set(paths):
            raise UserError(
                f"'{sorted(taken & set(paths))[0]}' has an adapter already, and in training with dropout DoRA would "
                "ignore it", where="adapter.dropout", fix="Set dropout to 0.",
            )
        with adapters.plain(module):
            for path in paths:
                weight: Any = module.get_submodule(path).weight
                # GPT-2's weights are (in, out), all others (out, in, …)
                rows = weight.T if type(module.get_submodule(path)).__name__ == "Conv1D" else weight.flatten(1)
                if bool((rows == 0).all(dim=1).any()):
                    raise UserError(
                        f"a row of '{path}' is zero, and DoRA divides by its norm", where="adapter",
                        fix="Train the model with 'full' first, or leave the layer out of 'modules:'.",
                    )

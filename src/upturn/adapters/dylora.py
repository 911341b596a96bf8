"""DyLoRA: a LoRA whose leading ranks are an adapter of their own, at every rank up to the largest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from upturn import seeds
from upturn.adapter_layers import injection as adapters
from upturn.adapters._gated import Gated
from upturn.protocols import Trainable


@dataclass(frozen=True)
class Dylora(Gated):
    """W + (alpha / rank) B[:, :b] A[:b] in each step, with b uniform in 1 … rank, drawn from the step's number.

    Valipour et al. 2023, "DyLoRA: Parameter-efficient tuning of pre-trained models using dynamic search-free low-rank
    adaptation", section 4.1, in the variant that trains all of the b ranks; A is (rank, in), B (out, rank). The paper's
    scale is alpha / b; here it does not depend on b, so that a rank adds the same in every cut. Between the steps, and
    in the saved adapter, all ranks are on; ``upturn export --what adapters --rank b`` keeps the first b.
    """

    rank: int = 16  # the largest
    adapter_name: str = "dylora"

    @property
    def gates(self) -> list[float]:
        return [1.0] * self.rank

    @property
    def scale(self) -> float:
        return (self.alpha or 2 * self.rank) / self.rank

    def attach(self, model: Trainable, total_steps: int, key: int) -> None:
        super().attach(model, total_steps, key)
        config = adapters.inner(model.module).peft_config[self.adapter_name]
        config.rank_key, config.nested = key, True

    def drawn(self, model: Trainable, step: int) -> int:
        """The rank of step ``step``, from 0: a function of the stage's key and the step."""
        key = adapters.inner(model.module).peft_config[self.adapter_name].rank_key
        return 1 + int(float(seeds.uniform(seeds.fold(key, step), stream=0)[0]) * self.rank)

    def before_step(self, model: Trainable, step: int, loss: Callable[[int], float]) -> None:
        self._only(model, self.drawn(model, step))

    def after_step(self, model: Trainable, step: int, learning_rate: float) -> None:
        self._only(model, self.rank)

    @torch.no_grad()
    def _only(self, model: Trainable, rank: int) -> None:
        for gates in self.values(model.module):
            gates[:rank] = 1.0
            gates[rank:] = 0.0

"""ALoRA: ranks that matter least by ablation are taken from their layers and given to others during the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upturn.adapter_layers import injection as adapters
from upturn.adapters._gated import Gated
from upturn.protocols import Trainable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Alora(Gated):
    """W + (alpha / rank) B diag(g) A with gates g (most,) of 0 and 1; the ones add up to ``rank`` a layer on average.

    Liu et al. 2024, "ALoRA: Allocating low-rank adaptation for fine-tuning large language models", section 3. A rank's
    importance (AB-LoRA, there equation 6) is S(M) - S(M without it) + S(M with it alone), where S is minus the loss of
    the step's first ``rows`` examples, M the model with all ranks. ``moves`` times in a stage the least important
    ``share`` of all ranks is closed, and as many are opened: one each, in turn, in the layers that lost none, those of
    the highest mean importance first. What opens begins at zero (B = 0). A move costs two forward passes of ``rows``
    examples for every rank. The gates are in a buffer of the module, so that a resumed stage continues exactly.
    """

    rank: int = 8  # on average, at all times
    most: int | None = None  # ranks of one layer; None: twice the rank (ours: memory that a layer may grow into)
    moves: int = 8  # of which each can change every twentieth rank; ours, the paper sets both by the task
    share: float = 0.05
    rows: int = 4
    warmup: float = 0.2  # share of the steps before the first move
    settle: float = 0.3  # share of the steps after the last
    adapter_name: str = "alora"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranks < self.rank:
            raise ValueError("most must be at least rank")
        if self.moves < 1 or self.rows < 1 or not 0 < self.share < 1:
            raise ValueError("moves and rows must be at least 1, and share above 0 and below 1")
        if min(self.warmup, self.settle) < 0 or self.warmup + self.settle >= 1:
            raise ValueError("warmup and settle must be shares of the steps, together below 1")

    @property
    def ranks(self) -> int:
        return 2 * self.rank if self.most is None else self.most

    @property
    def gates(self) -> list[float]:
        return [1.0] * self.rank + [0.0] * (self.ranks - self.rank)

    @property
    def scale(self) -> float:
        return (self.alpha or 2 * self.rank) / self.rank

    def begin(self, module: PreTrainedModel) -> None:
        super().begin(module)
        for (_, layer), gates in zip(self.layers(module), self.values(module), strict=True):
            layer.allocation = Allocation(gates[:, 0] != 0)

    def steps(self, total: int) -> list[int]:
        """The steps, from 0, before which ranks are moved."""
        first, last = self.warmup * total, (1 - self.settle) * total
        return sorted({round(first + (last - first) * i / max(1, self.moves - 1)) for i in range(self.moves)})

    def before_step(self, model: Trainable, step: int, loss: Callable[[int], float]) -> None:
        """The gates of a resumed stage; at some steps importance and a move."""
        self._open(model, self._kept(model))
        if step in self.steps(adapters.inner(model.module).peft_config[self.adapter_name].total_step):
            before = self._kept(model)
            after = reallocate(self._importance(model, loss), before, self.share)
            with torch.no_grad():
                for (_, layer), old, new in zip(self.layers(model.module), before, after, strict=True):
                    layer.lora_B[self.adapter_name][:, new & ~old] = 0.0
                    layer.allocation.kept.copy_(new)
            self._open(model, after)

    def finish(self, model: Trainable) -> None:
        self.remove(model.module)

    def _kept(self, model: Trainable) -> list[Tensor]:
        return [layer.allocation.kept for _, layer in self.layers(model.module)]

    @torch.no_grad()
    def _open(self, model: Trainable, kept: list[Tensor]) -> None:
        for gates, on in zip(self.values(model.module), kept, strict=True):
            gates.copy_(on[:, None])

    @torch.no_grad()
    def _importance(self, model: Trainable, loss: Callable[[int], float]) -> list[Tensor]:
        """Of every rank, (most,) a layer; those that are closed are minus infinity."""
        gates, kept = self.values(model.module), self._kept(model)
        found = [torch.full((self.ranks,), -torch.inf, dtype=torch.float64) for _ in gates]
        whole = loss(self.rows)

        def without() -> None:
            for each in gates:
                each.zero_()

        for layer, rank in [(i, int(j)) for i, on in enumerate(kept) for j in on.nonzero()[:, 0]]:
            gates[layer][rank] = 0.0
            less = loss(self.rows)
            without()
            gates[layer][rank] = 1.0
            alone = loss(self.rows)
            self._open(model, kept)
            found[layer][rank] = less - whole - alone
        return found


class Allocation(nn.Module):
    """Which of a layer's ranks are open, (most,) bool."""

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept.detach().clone())


def reallocate(importance: list[Tensor], kept: list[Tensor], share: float) -> list[Tensor]:
    """The open ranks after a move: (most,) bool a layer, in all as many as before.

    importance  (most,) a layer; of closed ranks it is not read
    kept        (most,) bool a layer, the open ranks now
    """
    flat = torch.cat(kept).cpu()
    scores = torch.cat(importance).masked_fill(~flat, torch.inf)
    count = max(1, round(share * int(flat.sum())))
    closed = torch.zeros_like(flat)
    closed[scores.argsort(stable=True)[:count]] = True
    sizes = [len(each) for each in kept]
    lost = [bool(part.any()) for part in torch.split(closed, sizes)]
    after = [part.clone() for part in torch.split(flat & ~closed, sizes)]
    means = [
        float(part[on].mean()) if bool(on.any()) else -float("inf")
        for part, on in zip(importance, (each.cpu() for each in kept), strict=True)
    ]
    by_importance = sorted(range(len(kept)), key=lambda i: (lost[i], -means[i], i))
    gaining = [i for i in by_importance if not lost[i]] or by_importance
    _give(after, gaining, count)
    _give(after, by_importance, int(flat.sum()) - sum(int(part.sum()) for part in after))  # where those are full
    return [part.to(each.device) for part, each in zip(after, kept, strict=True)]


def _give(after: list[Any], layers: list[int], count: int) -> None:
    """``count`` closed ranks are opened, one a layer in turn, as far as there are closed ones."""
    while count > 0 and any(not bool(after[i].all()) for i in layers):
        for i in layers:
            closed = (~after[i]).nonzero()
            if count > 0 and len(closed):
                after[i][int(closed[0])] = True
                count -= 1

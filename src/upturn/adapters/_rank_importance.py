"""AdaLoRA's importance of each rank of each layer, and the ranks that are kept within the budget.

Zhang et al. 2023, "AdaLoRA: Adaptive budget allocation for parameter-efficient fine-tuning". All state is in
buffers of the layer, so that it is part of the module's state and a resumed stage continues exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upturn.adapter_layers import injection as adapters

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import PreTrainedModel

_BETA = 0.85  # of both averages, as in the paper (section 4)
_PARTS = ("E", "A", "B")


class Importance(nn.Module):
    """Sensitivity and its uncertainty (section 3.2) of one layer's three matrices, and which ranks are kept."""

    kept: Tensor

    def __init__(self, layer: BaseTunerLayer, name: str) -> None:
        super().__init__()
        for part in _PARTS:
            like = getattr(layer, f"lora_{part}")[name].detach()
            self.register_buffer(f"sensitivity_{part}", torch.zeros_like(like))
            self.register_buffer(f"uncertainty_{part}", torch.zeros_like(like))
        rank = len(layer.lora_E[name])
        self.register_buffer("kept", torch.ones(rank, dtype=torch.bool, device=layer.lora_E[name].device))


def budget(step: int, first: int, last: int, total: int, target: int) -> int:
    """Ranks over all layers after ``step``: all ``total`` up to ``first``, ``target`` from ``last``, a cubic between.

    The paper's schedule (section 3.3), with ``first`` its t_i and ``last`` its T - t_f.
    """
    if step <= first:
        return total
    if step >= last:
        return target
    left = 1 - (step - first) / (last - first)
    return int(target + (total - target) * left**3)


def ranked(module: PreTrainedModel, name: str) -> list[tuple[str, Any]]:
    """(path, layer) of each layer whose ranks are being chosen."""
    return [(path, layer) for path, layer in adapters.layers(module) if name in getattr(layer, "lora_E", {})]


@torch.no_grad()
def observe(layers: list[Any], name: str) -> None:
    """Importance |w · gradient| into its averages (section 3.2). A weight without a gradient counts as 0.

    Raises ValueError where no weight has one: they were cleared too early.
    """
    kept: dict[str, list[Tensor]] = {"weight": [], "gradient": [], "sensitivity": [], "uncertainty": []}
    for layer in layers:
        for part in _PARTS:
            weight = getattr(layer, f"lora_{part}")[name]
            if weight.grad is None:
                continue
            kept["weight"].append(weight)
            kept["gradient"].append(weight.grad)
            kept["sensitivity"].append(getattr(layer.importance, f"sensitivity_{part}"))
            kept["uncertainty"].append(getattr(layer.importance, f"uncertainty_{part}"))
    if not kept["weight"]:
        raise ValueError("AdaLoRA needs the gradients of the step: after_step comes before they are cleared")
    now = torch._foreach_mul(kept["weight"], kept["gradient"])
    torch._foreach_abs_(now)
    torch._foreach_lerp_(kept["sensitivity"], now, 1 - _BETA)
    torch._foreach_sub_(now, kept["sensitivity"])
    torch._foreach_abs_(now)
    torch._foreach_lerp_(kept["uncertainty"], now, 1 - _BETA)


def scores(layer: BaseTunerLayer) -> Tensor:
    """(rank,) importance of each triplet: its singular value's, and the mean of each vector's (section 3.2)."""
    held = layer.importance
    value, left, right = (getattr(held, f"sensitivity_{p}") * getattr(held, f"uncertainty_{p}") for p in _PARTS)
    return value.reshape(-1) + left.mean(dim=1) + right.mean(dim=0)  # type: ignore[no-any-return]


@torch.no_grad()
def choose(layers: list[Any], count: int) -> None:
    """The ``count`` most important ranks over all layers are kept; of equals the first."""
    every = [scores(layer) for layer in layers]
    order = torch.cat(every).argsort(descending=True, stable=True)
    kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    kept[order[:count]] = True
    for layer, part in zip(layers, torch.split(kept, [len(s) for s in every]), strict=True):
        layer.importance.kept.copy_(part)


@torch.no_grad()
def prune(layers: list[Any], name: str) -> None:
    """The singular values of ranks that are not kept become zero; while ranks are chosen they may come back."""
    for layer in layers:
        layer.lora_E[name].masked_fill_(~layer.importance.kept[:, None], 0.0)


def orthogonality(layers: list[Any], name: str) -> Tensor | None:
    """Mean over all P and Q of the Frobenius norm of P Pᵀ - I; None where no rank is left.

    The paper (section 3.1) has the sum of squares; `peft` has this, whose size does not grow with the model.
    """
    norms = []
    for layer in layers:
        for matrix in (layer.lora_A[name], layer.lora_B[name].T):
            if len(matrix):
                norms.append(torch.linalg.norm(matrix @ matrix.T - torch.eye(len(matrix), device=matrix.device)))
    return torch.stack(norms).mean() if norms else None

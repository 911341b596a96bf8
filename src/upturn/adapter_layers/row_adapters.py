"""Different adapters for the rows of one batch: each row's output is the base's and the low-rank updates of its own.

The matrices of all adapters of a layer lie side by side, so that a layer costs three products however many adapters
there are: y = x Wᵀ + ((x Aᵀ) * g) Bᵀ, with x (rows, in), A (R, in), B (out, R) and g (rows, R) of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upturn.adapter_layers import injection

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers import PreTrainedModel

Chosen = tuple[str, ...]  # names of adapters that act together; () is the base alone


class RowAdapters:
    """Which of the adapters ``names`` act on each row of the running batch, of ``choices`` that rows can have."""

    def __init__(self, names: Sequence[str], choices: Sequence[Chosen], device: torch.device) -> None:
        on = [[float(name in chosen) for name in names] for chosen in choices]
        self.choices = torch.tensor(on, device=device).reshape(len(choices), len(names))
        self.rows = self.choices
        self._gates: dict[Chosen, Tensor] = {}
        self._columns: dict[Chosen, Tensor] = {}
        self._names = list(names)

    def select(self, index: Tensor) -> None:
        """The rows of the batch are these of ``choices``."""
        self._become(self.choices[index.to(self.choices.device)])

    def keep(self, index: Tensor) -> None:
        """Rows of the batch are picked and repeated, as those of a cache are."""
        self._become(self.rows[index.to(self.rows.device)])

    def _become(self, rows: Tensor) -> None:
        self.rows, self._gates = rows, {}

    def gates(self, columns: Chosen) -> Tensor:
        """(rows, R): for every rank, named by its adapter, whether it acts on the row."""
        if columns not in self._gates:
            if columns not in self._columns:
                places = [self._names.index(name) for name in columns]
                self._columns[columns] = torch.tensor(places, device=self.rows.device)
            self._gates[columns] = self.rows[:, self._columns[columns]]
        return self._gates[columns]


class _Layer(nn.Module):
    """An adapted linear layer, for rows with different adapters."""

    lora_a: Tensor
    lora_b: Tensor

    def __init__(self, base: nn.Module, parts: Sequence[tuple[str, Tensor, Tensor]], rows: RowAdapters) -> None:
        super().__init__()
        self.base_layer, self.row_adapters = base, rows
        self.columns: Chosen = tuple(name for name, a, _ in parts for _ in range(len(a)))
        self.register_buffer("lora_a", torch.cat([a for _, a, _ in parts]), persistent=False)
        self.register_buffer("lora_b", torch.cat([b for _, _, b in parts], dim=1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base_layer(x)
        gates = self.row_adapters.gates(self.columns).to(self.lora_a.dtype)
        hidden = nn.functional.linear(x.to(self.lora_a.dtype), self.lora_a)
        hidden = hidden * gates.reshape(len(gates), *[1] * (x.ndim - 2), -1)
        return result + nn.functional.linear(hidden, self.lora_b).to(result.dtype)


def factors(layer: BaseTunerLayer, name: str) -> tuple[Tensor, Tensor] | None:
    """A (rank, in) and B (out, rank) of a layer's low-rank update B A, its scale in B, or None where it is none.

    Of LoRA, and of the form of AdaLoRA, whose values go into A and whose ranks at zero are left out; convolutions are
    taken as matrices. DoRA, LoHa and LoKr are no such update.
    """
    if name in getattr(layer, "lora_E", {}):
        a, b = layer.lora_A[name] * layer.lora_E[name], layer.lora_B[name]
        scale = float(layer.scaling[name] / (layer.ranknum[name] + 1e-5))  # peft's own
        on = (layer.lora_E[name][:, 0] != 0).nonzero()[:, 0]
        return a.detach()[on], b.detach()[:, on] * scale
    if name in getattr(layer, "lora_A", {}) and name not in getattr(layer, "lora_variant", {}):
        a, b = layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach()
        return a.flatten(1), b.flatten(1) * float(layer.scaling[name])
    return None


def chain(outer: BaseTunerLayer) -> list[Any]:
    """The injected layers of one layer of the model, the outermost first."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: list[Any] = [outer]
    while isinstance(found[-1].base_layer, BaseTunerLayer):
        found.append(found[-1].base_layer)
    return found


def fits(module: PreTrainedModel, names: Sequence[str]) -> bool:
    """Whether these adapters are low-rank updates of linear layers throughout, so that rows can differ."""
    return all(
        factors(layer, name) is not None
        for _, layer in injection.layers(module) for name in names if injection.has(layer, name)
    ) and not any(hasattr(layer.get_base_layer(), "kernel_size") for _, layer in injection.layers(module))


@contextmanager
def rows_of(module: PreTrainedModel, choices: Sequence[Chosen]) -> Iterator[RowAdapters]:
    """Inside, each row of a batch has its own adapters, see :class:`RowAdapters`; ``fits`` must hold for all of them.

    At first the rows of a batch are the choices in their order.
    """
    names = [name for name in injection.names(module) if any(name in chosen for chosen in choices)]
    rows = RowAdapters(names, choices, next(module.parameters()).device)
    taken = injection.outermost(module)
    for parent, place, outer in taken:
        parts = [
            (name, *found) for layer in chain(outer) for name in names
            if injection.has(layer, name) and (found := factors(layer, name)) is not None and len(found[0])
        ]
        base = outer.get_base_layer()
        parent._modules[place] = _Layer(base, parts, rows) if parts else base
    try:
        yield rows
    finally:
        for parent, place, outer in taken:
            parent._modules[place] = outer


@contextmanager
def only(module: PreTrainedModel, chosen: Chosen) -> Iterator[None]:
    """Inside, these adapters alone are on, in the order of injection."""
    injected = [layer for _, layer in injection.layers(module)]
    injection.activate(injected, [name for name in injection.names(module) if name in chosen])
    try:
        yield
    finally:
        injection.activate(injected, injection.names(module))

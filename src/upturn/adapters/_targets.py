"""The target layers of an adapter, and how `peft` selects them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from upturn.adapter_layers import injection as adapters
from upturn.adapter_layers.heads import trained_whole
from upturn.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ALL = "all-linear"
WHERE = "adapter.modules"


def targets(
    module: PreTrainedModel, wanted: Sequence[str] | str, kinds: tuple[type[nn.Module], ...], rank: int = 0
) -> list[str]:
    """Paths of the layers, in the model's order.

    ``wanted``: "all-linear" is every layer of these kinds but a language model's output and heads; a list is names, or
    ends of paths ("q_proj", "mlp.up_proj"); another string is a regular expression that a whole path must match. Layers
    that are less than ``rank`` wide on a side are left out of "all-linear", and refused where they are named.

    Raises UserError naming an entry that matches nothing, or a layer that the adapter does not fit.
    """
    with adapters.plain(module):
        heads = trained_whole(module)
        every = {path: layer for path, layer in module.named_modules() if path and path not in heads}
        fitting = [path for path, layer in every.items() if isinstance(layer, kinds) and _whole(layer)]
        small = {path for path in fitting if min(_sides(every[path])) < rank}
        tied = _tied(module, every)
        if wanted == ALL:
            output = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
            found = [p for p in fitting if p not in small and p not in tied and every[p] is not output]
            if not found:
                raise UserError(
                    "the model has no layer that this adapter fits", where=WHERE,
                    fix="Lower the rank, or train the model with the adapter 'full'.",
                )
            return found
    named = _named(wanted, every)
    for path in named:
        if path not in fitting:
            raise UserError(
                f"'{path}' is a {type(every[path]).__name__}, which this adapter does not fit", where=WHERE,
                fix=f"It goes on {', '.join(sorted(kind.__name__ for kind in kinds))} without groups.",
            )
        if path in tied:
            raise UserError(f"'{path}' shares its weight with another layer", where=WHERE, fix="Leave it out.")
        if path in small:
            raise UserError(f"'{path}' is smaller than the rank of {rank}", where=WHERE, fix="Leave it out.")
    return [path for path in fitting if path in named]


def _whole(layer: nn.Module) -> bool:
    """Whether `peft`'s layer computes the same; torch's own attention never calls its output layer."""
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False
    dilation = getattr(layer, "dilation", 1)
    dense = set(dilation if isinstance(dilation, tuple) else (dilation,)) == {1}
    return dense and getattr(layer, "groups", 1) == 1 and getattr(layer, "padding_mode", "zeros") == "zeros"


def _sides(layer: nn.Module) -> tuple[int, int]:
    """Of the weight as a matrix: out (of Conv1D: in) and the rest."""
    if isinstance(layer, nn.Linear):  # a quantized weight has another shape
        return layer.out_features, layer.in_features
    weight: Any = layer.weight
    return weight.shape[0], weight[0].numel()


def _tied(module: PreTrainedModel, every: dict[str, nn.Module]) -> set[str]:
    owners: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name.rpartition(".")[0])
    return {path for paths in owners.values() if len(paths) > 1 for path in paths if path in every}


def _named(wanted: Sequence[str] | str, every: dict[str, nn.Module]) -> set[str]:
    if isinstance(wanted, str):
        try:
            pattern = re.compile(wanted)
        except re.error as error:
            raise UserError(f"{wanted!r} is no regular expression: {error}", where=WHERE) from error
        found = {path for path in every if pattern.fullmatch(path)}
        if not found:
            raise UserError(
                f"no layer's path is matched by {wanted!r}", where=WHERE,
                fix=f"Write '{ALL}', a list of names, or an expression for paths such as '{_deepest(every)}'.",
            )
        return found
    found = set()
    for name in wanted:
        matched = {path for path in every if path == name or path.endswith(f".{name}")}
        if not matched:
            near = difflib.get_close_matches(name, {path.rpartition(".")[2] for path in every}, n=1)
            raise UserError(
                f"the model has no layer '{name}'", where=WHERE,
                fix=f"Did you mean '{near[0]}'?" if near else f"Its layers have names such as '{_deepest(every)}'.",
            )
        found |= matched
    return found


def _deepest(every: Collection[str]) -> str:
    return max(every, key=lambda path: path.count("."))


def linear_kinds() -> tuple[type[nn.Module], ...]:
    """Linear layers: torch's, and GPT-2's with transposed weights."""
    from transformers.pytorch_utils import Conv1D

    return torch.nn.Linear, Conv1D

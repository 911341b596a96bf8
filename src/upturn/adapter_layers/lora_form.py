"""Low-rank adapters of any kind as plain LoRA of `peft`: cut to a rank, combined with weights, written to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from upturn import seeds
from upturn.adapter_layers import adapter_files, injection, row_adapters
from upturn.errors import UserError

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

Combination = Literal[
    "cat", "svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd",
    "magnitude_prune", "magnitude_prune_svd",
]  # of `peft`'s add_weighted_adapter; cat is the weighted sum itself, its rank the sum of the ranks
COMBINATIONS: tuple[Combination, ...] = get_args(Combination)
_ONE = "layer"  # the name of the only layer of the modules that `peft` combines adapters on

Parts = dict[str, tuple[Tensor, Tensor]]
"""By the path of a layer A (rank, in) and B (out, rank), whose product is the update of its weight as a matrix."""


def parts(module: PreTrainedModel, name: str, rank: int | None = None) -> Parts:
    """The update of every layer that the adapter is on; layers without a rank are left out.

    ``rank`` keeps that many at most of each layer: the first ones where they are an adapter of their own (DyLoRA),
    else the nearest update of that rank (Eckart & Young 1936). Raises UserError where it is no low-rank update.
    """
    found: Parts = {}
    for path, layer in injection.layers(module):
        if not injection.has(layer, name):
            continue
        pair = row_adapters.factors(layer, name)
        if pair is None:
            raise UserError(
                f"the adapter '{name}' is no low-rank update (DoRA, LoHa, LoKr)", where="--adapter",
                fix="Export it with '--format peft', or the model with '--what model'.",
            )
        if rank is not None and rank < len(pair[0]):
            first = adapter_files.nested(module, name)
            pair = (pair[0][:rank], pair[1][:, :rank]) if first else _nearest(*pair, rank)
        if len(pair[0]):
            found[path] = (pair[0].float(), pair[1].float())
    return found


def _nearest(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The matrices of the nearest product of this rank: the leading singular triplets of B A."""
    left, of_left = torch.linalg.qr(b.double())
    right, of_right = torch.linalg.qr(a.double().T)
    u, values, v = torch.linalg.svd(of_left @ of_right.T)
    root = values[:rank].sqrt()
    return (root[:, None] * (v[:rank] @ right.T)).to(a.dtype), ((left @ u[:, :rank]) * root).to(b.dtype)


def cut(of: Parts, rank: int) -> Parts:
    """The nearest updates of this rank."""
    return {path: _nearest(*pair, rank) if rank < len(pair[0]) else pair for path, pair in of.items()}


def combined(
    each: Sequence[Parts], weights: Sequence[float], how: Combination, density: float | None = None,
    rank: int | None = None,
) -> Parts:
    """One update from several, layer by layer, by `peft`'s ``add_weighted_adapter``.

    how      Linear combination of A and of B, TIES (Yadav et al. 2023), DARE (Yu et al. 2024), …; what ends in svd acts
             on the products, the others on the matrices, which must have equal ranks
    density  share of the values that TIES, DARE and pruning keep
    rank     of what ends in svd; None: the largest

    Random choices of DARE are the same in every call. Raises UserError where `peft` refuses.
    """
    pruning = how not in ("cat", "svd", "linear")
    if pruning and (density is None or not 0 < density <= 1):
        raise UserError(f"'{how}' needs the share of values to keep", where="--density", fix="Give one above 0, to 1.")
    out: Parts = {}
    for number, path in enumerate(dict.fromkeys(path for of in each for path in of)):
        here = [(of[path], weight) for of, weight in zip(each, weights, strict=True) if path in of]
        seeds.seed_torch(number)
        try:
            out[path] = _one(here, how, density if pruning else None, rank)
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"peft cannot combine these by '{how}': {str(error).splitlines()[0]}", where="--combine",
                fix="Of different ranks, take cat, or a way that ends in svd.",
            ) from error
    return out


def _one(
    here: Sequence[tuple[tuple[Tensor, Tensor], float]], how: Combination, density: float | None, rank: int | None
) -> tuple[Tensor, Tensor]:
    """One layer's update, on a module that is that layer alone."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    (a, b), _ = here[0]
    alone = nn.ModuleDict({_ONE: nn.Linear(a.shape[1], len(b), bias=False)})
    names = [f"adapter_{i}" for i in range(len(here))]
    model: Any = None
    for name, ((down, up), _) in zip(names, here, strict=True):
        config = LoraConfig(r=len(down), lora_alpha=len(down), target_modules=[_ONE])
        if model is None:
            model = LoraModel(alone, config, name)
        else:
            model.peft_config[name] = config
            model.inject_adapter(alone, name)
        layer: Any = alone[_ONE]
        layer.lora_A[name].weight.data, layer.lora_B[name].weight.data = down.clone(), up.clone()
    extra: dict[str, Any] = {"svd_full_matrices": False} if how.endswith("svd") else {}
    if how.endswith("svd") and rank is not None:
        extra["svd_rank"] = rank
    model.add_weighted_adapter(
        names, [weight for _, weight in here], "all", combination_type=how, density=density, **extra
    )
    scale = layer.scaling["all"]
    return layer.lora_A["all"].weight.detach().clone(), layer.lora_B["all"].weight.detach() * scale


def write(module: PreTrainedModel, of: Parts, folder: Path, like: PeftConfig) -> None:
    """An adapter that `peft` opens as LoRA, on the model of ``module``; what it has in common with ``like`` is kept.

    Layers may have different ranks; each has a scale of one.
    """
    from peft import LoraConfig

    ranks = {path: len(a) for path, (a, _) in of.items()}
    if not ranks:
        raise UserError("no layer has a rank left", where="what")
    most = max(ranks.values())
    others = {path: rank for path, rank in ranks.items() if rank != most}
    layers = dict(injection.layers(module))
    config = LoraConfig(
        r=most, lora_alpha=most, rank_pattern=others, alpha_pattern=dict(others),
        target_modules=injection.spelled(module, list(of)), inference_mode=True,
        base_model_name_or_path=like.base_model_name_or_path, task_type=like.task_type,
        fan_in_fan_out=any(bool(getattr(layers[path], "fan_in_fan_out", False)) for path in of),
    )
    tensors: dict[str, Tensor] = {}
    for path, (a, b) in of.items():
        shape = layers[path].get_base_layer().weight.shape
        if len(shape) > 2:
            a, b = a.reshape(len(a), *shape[1:]), b.reshape(*b.shape, *[1] * (len(shape) - 2))
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    adapter_files.write_adapter(folder, config, tensors)


@torch.no_grad()
def fold(module: PreTrainedModel, each: Sequence[Parts]) -> None:
    """The sum of these updates into the weights of the base, and all adapters removed."""
    updates: dict[str, Tensor] = {}
    for of in each:
        for path, (a, b) in of.items():
            updates[path] = updates.get(path, 0.0) + b @ a
    injection.add(module, updates)

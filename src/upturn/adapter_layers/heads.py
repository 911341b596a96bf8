"""Additional linear heads on a language model (critic values, rewards, classes), saved beside the base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from upturn.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEADS = ("value_head", "reward_head", "class_head")  # submodules of the model, each an nn.Linear
OWN = ("score",)  # the head of `transformers`' classes for sequences: a part of the model, and of its file
FILE = "heads.safetensors"


def heads(module: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """The additional heads of this model, by name."""
    return {name: getattr(module, name) for name in HEADS if hasattr(module, name)}


def trained_whole(module: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Heads that are trained in full beside an adapter, as a new task needs."""
    return {name: getattr(module, name) for name in (*HEADS, *OWN) if hasattr(module, name)}


def save(module: PreTrainedModel, folder: Path) -> None:
    """heads.safetensors, where there is a head."""
    from safetensors.torch import save_file

    found = {
        f"{name}.{part}": value.detach().cpu().contiguous()
        for name, head in heads(module).items() for part, value in head.state_dict().items()
    }
    if found:
        save_file(found, folder / FILE, metadata={"format": "pt"})


def load(module: PreTrainedModel, folder: Path) -> None:
    """The heads of ``save`` onto a model without them; UserError where the file cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / FILE
    if not path.is_file():
        return
    try:
        tensors = load_file(path)
        for name in sorted({key.partition(".")[0] for key in tensors}):
            weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
            head = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            head.load_state_dict({"weight": weight} if bias is None else {"weight": weight, "bias": bias})
            setattr(module, name, head)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(f"these heads cannot be read: {error}", where=str(path), fix="They are damaged.") from error

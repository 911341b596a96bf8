"""Files of adapters: ``adapters/<name>/`` in the format of `peft`, and the order in which they act."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from upturn.adapter_layers import injection as adapters
from upturn.errors import UserError
from upturn.store.files import read_json, to_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FOLDER = "adapters"
_ORDER, _CONFIG, _WEIGHTS = "order.json", "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of every name in a file of `peft`
_DAMAGED = "It is damaged: use another checkpoint."


def save(module: PreTrainedModel, folder: Path) -> None:
    """Every adapter of the model below ``folder``; nothing where there is none. No paths, no times."""
    from safetensors.torch import save_file

    for name in adapters.names(module):
        at = folder / FOLDER / name
        at.mkdir(parents=True, exist_ok=True)
        (at / _CONFIG).write_text(to_json(module.peft_config[name].to_dict()), encoding="utf-8")
        save_file(_kept(module, name), at / _WEIGHTS, metadata={"format": "pt"})
    if adapters.names(module):
        (folder / FOLDER / _ORDER).write_text(to_json(adapters.names(module)), encoding="utf-8")


def _kept(module: PreTrainedModel, name: str) -> dict[str, torch.Tensor]:
    """An adapter's weights without the ranks that AdaLoRA has finally pruned."""
    pattern = getattr(module.peft_config[name], "rank_pattern", None) or {}
    kept: dict[str, torch.Tensor] = {}
    for key, value in adapters.tensors(module, name).items():
        path, _, part = key.rpartition(".")
        tensor, ranks = value.detach().cpu(), pattern.get(f"{path}.lora_E")
        across = 1 if part == "lora_B" else 0
        if ranks is not None and tensor.shape[across] == len(ranks):
            tensor = tensor.index_select(across, torch.tensor(ranks).nonzero()[:, 0])
        kept[_PREFIX + key] = tensor.contiguous()
    return kept


def load(module: PreTrainedModel, folder: Path) -> None:
    """All adapters of ``folder`` into the model, on and frozen, in their order.

    Raises UserError naming the file that is missing, damaged, or holds weights for layers that this model has not.
    """
    path = folder / FOLDER / _ORDER
    if not (folder / FOLDER).is_dir():
        return
    order = read_json(path)
    there = sorted(entry.name for entry in (folder / FOLDER).iterdir() if entry.is_dir())
    if not isinstance(order, list) or sorted(map(str, order)) != there:
        raise UserError(f"names {order}, and there are {there}", where=str(path), fix=_DAMAGED)
    for name in order:
        _load_one(module, name, folder / FOLDER / name)


def _load_one(module: PreTrainedModel, name: str, at: Path) -> None:
    from peft import PeftConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_json(at / _CONFIG)
    try:
        config = PeftConfig.from_pretrained(str(at))
        adapters.inject(module, name, config)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"this adapter does not fit: {error}", where=str(at / _CONFIG), fix=_DAMAGED) from error
    try:
        found = {key.removeprefix(_PREFIX): value for key, value in load_file(at / _WEIGHTS).items()}
        adapters.write(module, name, found)
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(at / _WEIGHTS), fix=_DAMAGED) from error
    except (SafetensorError, KeyError, RuntimeError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"these weights do not fit: {reason}", where=str(at / _WEIGHTS), fix=_DAMAGED) from error

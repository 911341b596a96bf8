"""Files of adapters: ``adapters/<name>/`` in the format of `peft`, and the order in which they act."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from upturn.adapter_layers import injection as adapters
from upturn.errors import UserError
from upturn.store.files import read_json, to_json

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

FOLDER = "adapters"
_ORDER, CONFIG, _WEIGHTS = "order.json", "adapter_config.json", "adapter_model.safetensors"
_RANKS, _NESTED = "ranks.json", "nested"  # beside the files of `peft`, where there is something to say
_PREFIX = "base_model.model."  # of every name in a file of `peft`
_DAMAGED = "It is damaged: use another checkpoint."


def save(module: PreTrainedModel, folder: Path, chosen: Sequence[str] | None = None) -> None:
    """Every adapter of the model below ``folder``, or the chosen ones; nothing where there is none. No paths or times.
    """
    names = [name for name in adapters.names(module) if chosen is None or name in chosen]
    for name in names:
        at = folder / FOLDER / name
        write_adapter(at, module.peft_config[name], _kept(module, name))
        if nested(module, name):
            (at / _RANKS).write_text(to_json({_NESTED: True}), encoding="utf-8")
    if names:
        write_order(folder, names)


def write_adapter(at: Path, config: PeftConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """One adapter's folder; ``tensors`` are called as in the model."""
    from safetensors.torch import save_file

    at.mkdir(parents=True, exist_ok=True)
    (at / CONFIG).write_text(to_json(config.to_dict()), encoding="utf-8")
    named = {_PREFIX + key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    save_file(named, at / _WEIGHTS, metadata={"format": "pt"})


def write_order(folder: Path, names: Sequence[str]) -> None:
    """The order in which the adapters below ``folder`` act."""
    (folder / FOLDER / _ORDER).write_text(to_json(list(names)), encoding="utf-8")


def nested(module: PreTrainedModel, name: str) -> bool:
    """Whether the adapter's first ranks are an adapter of their own, for every number of them."""
    return bool(getattr(module.peft_config[name], _NESTED, False))


def order(folder: Path) -> list[str]:
    """The adapters of a saved model, as they act; empty where there is none."""
    path = folder / FOLDER / _ORDER
    return [str(name) for name in read_json(path)] if path.is_file() else []


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
        kept[key] = tensor
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


def add(module: PreTrainedModel, stated: Sequence[str]) -> list[str]:
    """Adapters of other runs and files into the model, on and frozen, and what each is called there.

    stated  names of adapters that the model has, and folders in the format of `peft`, each loaded once: it is called
            as its folder, with a number where the model has an adapter of that name

    Raises UserError where there is neither, or a folder's adapter does not fit the model.
    """
    called: dict[str, str] = {}
    for each in stated:
        known = adapters.names(module)
        if each in called or each in known:
            called.setdefault(each, each)
            continue
        at = Path(each)
        if not (at / CONFIG).is_file():
            there = f"the model has {', '.join(known)}" if known else "the model has none"
            raise UserError(
                f"there is no adapter '{each}': {there}", where="--adapter",
                fix="Name one of them, or a folder that holds adapter_config.json.",
            )
        own = re.sub(r"[^A-Za-z0-9_-]", "-", at.resolve().name)
        name = next(name for name in chain([own], (f"{own}-{i}" for i in count(2))) if name not in known)
        _load_one(module, name, at)
        called[each] = name
    return [called[each] for each in stated]


def _load_one(module: PreTrainedModel, name: str, at: Path) -> None:
    from peft import PeftConfig
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_json(at / CONFIG)
    try:
        config = PeftConfig.from_pretrained(str(at))
        adapters.inject(module, name, config)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"this adapter does not fit: {error}", where=str(at / CONFIG), fix=_DAMAGED) from error
    try:
        found = {key.removeprefix(_PREFIX): value for key, value in load_file(at / _WEIGHTS).items()}
        adapters.write(module, name, found)
        if (at / _RANKS).is_file():
            setattr(module.peft_config[name], _NESTED, bool(read_json(at / _RANKS)[_NESTED]))
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(at / _WEIGHTS), fix=_DAMAGED) from error
    except (SafetensorError, KeyError, RuntimeError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"these weights do not fit: {reason}", where=str(at / _WEIGHTS), fix=_DAMAGED) from error

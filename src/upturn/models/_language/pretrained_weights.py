"""Weights of causal language models: from a config, a folder or the hub; equal weights are saved as equal bytes."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from upturn.adapter_layers import adapter_files, heads, injection
from upturn.data.tokenizers import Codec
from upturn.embeddings.pretrained import located, quiet, without_dropout
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._hub import Form, read, read_without_weights
from upturn.store.weights import linked

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_CONFIGS, _WEIGHTS = ("config.json", "generation_config.json"), "model.safetensors"
_FORM = Form(
    "AutoModelForCausalLM", needs="It needs config.json, model.safetensors and tokenizer.json, all whole.",
    whole="Give a causal language model, with its head.",
)
_EVERYTHING = "100TB"  # one file of any size: the saved files do not depend on the library's shard size


def from_config(spec: Mapping[str, Any], codec: Codec) -> torch.nn.Module:
    """A model with random weights from torch's stream, its vocabulary and special tokens those of ``codec``."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

    given = dict(spec)
    name = given.pop("model_type")
    if name not in CONFIG_MAPPING or CONFIG_MAPPING[name] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        near = difflib.get_close_matches(name, list(CONFIG_MAPPING), n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        raise UserError(
            f"transformers has no causal language model '{name}'", where="model.config.model_type",
            fix=f"{hint}Use llama, gpt2, gpt_neox, qwen2, …",
        )
    with quiet():
        usual = AutoConfig.for_model(name)
    known = {*usual.to_dict(), *usual.attribute_map}
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1)
            raise UserError(
                f"a {name} config has no key '{key}'", where=f"model.config.{key}",
                fix=f"Did you mean '{near[0]}'?" if near else "See the model's page in the transformers documentation.",
            )
    size = len(codec.tokenizer)
    if given.setdefault("vocab_size", size) < size:
        raise UserError(
            f"vocab_size is {given['vocab_size']}, but the tokenizer has {size} tokens",
            where="model.config.vocab_size", fix="Leave it out: it follows the tokenizer.",
        )
    ids = {"pad_token_id": codec.pad, "bos_token_id": codec.bos, "eos_token_id": codec.eos}
    try:
        with quiet():
            config = AutoConfig.for_model(name, **{**given, **ids})
            without_dropout(config, given)
            module: torch.nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # each architecture checks its config in its own way
        lines = str(error.__cause__ or error).strip().splitlines()
        raise UserError(
            f"no {name} can be built from this: {lines[0] if lines else error!r}", where="model.config",
            fix="Fix the values.",
        ) from error
    return module


def from_files(folder: str | None, hub: str | None) -> tuple[torch.nn.Module, Codec]:
    """A pre-trained model and its tokenizer, in float32; the hub's local cache is tried before the network."""
    try:
        return located(folder, hub, lambda name, where, local: read(_FORM, name, where, local=local, dropout=False)[:2])
    except UserError as error:
        if folder is not None:
            raise
        raise UserError(
            f"'{hub}' is neither in the local cache nor can it be fetched: {error.what}", where="model.hub",
            fix=f"Fetch it where there is a network (hf download {hub}), or give a local folder.",
        ) from error


def tokenizer_and_config(folder: str | None, hub: str | None) -> tuple[Codec, PretrainedConfig]:
    """The tokenizer and the config of a pre-trained model, without its weights."""
    return located(folder, hub, lambda name, where, local: read_without_weights(_FORM, name, where, local=local))


def load(folder: Path) -> tuple[torch.nn.Module, Codec]:
    """What ``save`` wrote, adapters on."""
    module, codec, _ = read(_FORM, str(folder), str(folder), local=True, dropout=True)
    inner: Any = module
    inner.base_file = folder / _WEIGHTS
    heads.load(inner, folder)
    adapter_files.load(inner, folder)
    return module, codec


def save(module: torch.nn.Module, folder: Path) -> None:
    """config.json, generation_config.json and one model.safetensors, without paths or times; adapters and heads.

    A base that has not changed since it was loaded is linked, not written again.
    """
    inner: PreTrainedModel = unwrapped(module)
    inner.config._name_or_path = ""
    inner.name_or_path = ""
    folder.mkdir(parents=True, exist_ok=True)
    source: Path | None = getattr(inner, "base_file", None)
    with quiet(), injection.plain(inner):
        if source is not None and linked(source, folder / _WEIGHTS, inner.state_dict()):
            for name in _CONFIGS:
                if (source.parent / name).is_file():
                    shutil.copyfile(source.parent / name, folder / name)
        else:
            inner.save_pretrained(str(folder), max_shard_size=_EVERYTHING)
    heads.save(inner, folder)
    adapter_files.save(inner, folder)

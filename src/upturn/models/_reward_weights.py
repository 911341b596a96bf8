"""Causal language models with a head read at the last token: what ``AutoModelForSequenceClassification`` opens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from upturn.errors import UserError
from upturn.models import _adapter_files, _adapters, _pretrained
from upturn.models._tokenizer import Codec, settle

_HEAD = "score"  # what transformers calls the head of every causal model of this kind


def from_config(spec: Mapping[str, Any], codec: Codec, outputs: int) -> torch.nn.Module:
    """Random weights from torch's stream; the config is checked as that of a language model is."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    with torch.device("meta"):  # the config alone: nothing is allocated, nothing drawn
        config = _pretrained.bare(_pretrained.from_config(spec, codec)).config
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"transformers has no '{config.model_type}' with a head of its own", where="model.config.model_type",
            fix="Use llama, gpt2, gpt_neox, qwen2, …",
        )
    config.num_labels = outputs
    config.use_cache = False
    module: torch.nn.Module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    return _headed(module, codec, "model.config")


def from_files(folder: str | None, hub: str | None, outputs: int) -> tuple[torch.nn.Module, Codec, bool]:
    """Weights, tokenizer, and whether the head is there or was drawn anew, as it is on a plain language model.

    Adapters of a folder of ours are merged: what was learned in them is in the weights that this begins with.
    """
    if folder is not None:
        if not Path(folder).is_dir():
            raise UserError(f"there is no folder '{folder}'", where="model.folder", fix="Give the folder of a model.")
        found = _read(folder, outputs, "model.folder", local=True, dropout=False)
        _adapter_files.load(found[0], Path(folder))
        _adapters.merge(found[0])
        return found
    name = str(hub)
    try:
        return _read(name, outputs, "model.hub", local=True, dropout=False)
    except UserError:
        return _read(name, outputs, "model.hub", local=False, dropout=False)


def load(folder: Path, outputs: int) -> tuple[torch.nn.Module, Codec]:
    """What ``_pretrained.save`` wrote of such a module, adapters on."""
    module, codec, headed = _read(str(folder), outputs, str(folder), local=True, dropout=True)
    if not headed:
        raise UserError("the head is missing, and would have been random", where=str(folder),
                        fix="Use another checkpoint.")
    _adapter_files.load(module, folder)
    return module, codec


def _read(
    name: str, outputs: int, where: str, *, local: bool, dropout: bool
) -> tuple[torch.nn.Module, Codec, bool]:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    try:
        with _pretrained._quiet():
            config = AutoConfig.from_pretrained(name, local_files_only=local, trust_remote_code=False)
            if not dropout:
                _pretrained._without_dropout(config, {})
            config.num_labels = outputs
            config.use_cache = False
            module, report = AutoModelForSequenceClassification.from_pretrained(
                name, config=config, local_files_only=local, trust_remote_code=False, use_safetensors=True,
                dtype=torch.float32, output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # the readers of weights, JSON and tokenizers raise whatever they like
        said = str(error).strip().splitlines()
        raise UserError(
            f"the model '{name}' cannot be read with a head of {outputs}: {said[0] if said else repr(error)}",
            where=where, fix="It needs config.json, model.safetensors and tokenizer.json, all whole, of a causal "
                             "language model, with the same number of outputs if it has a head.",
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(f"{_HEAD}."))
    if missing:
        raise UserError(
            f"{len(missing)} weights are missing (the first is {missing[0]}) and would have been random",
            where=where, fix="Give a causal language model.",
        )
    codec, grown = settle(tokenizer, where)
    if grown and len(codec.tokenizer) > module.get_input_embeddings().weight.shape[0]:
        module.resize_token_embeddings(len(codec.tokenizer))
    return _headed(module, codec, where), codec, not report["missing_keys"]


def _headed(module: torch.nn.Module, codec: Codec, where: str) -> torch.nn.Module:
    """The module, its padding that of ``codec``: by it the library finds the last token."""
    inner = _pretrained.bare(module)
    if not isinstance(getattr(inner, _HEAD, None), torch.nn.Linear):
        raise UserError(
            f"the head of a '{inner.config.model_type}' is not read at the last token", where=where,
            fix="Use a causal language model: llama, gpt2, gpt_neox, qwen2, …",
        )
    inner.config.pad_token_id = codec.pad
    inner.config.get_text_config().pad_token_id = codec.pad
    return module

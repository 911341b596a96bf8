"""Checkpoints of causal language models with a head at the last token (``AutoModelForSequenceClassification``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from upturn.adapter_layers import adapter_files, injection
from upturn.data.tokenizers import Codec
from upturn.embeddings.pretrained import located
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models import _hub
from upturn.models._language import pretrained_weights
from upturn.models._weight_format import WeightFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HEAD = "score"  # the name of the head in transformers' causal models of this kind


def from_config(spec: Mapping[str, Any], codec: Codec, outputs: int, form: WeightFormat) -> torch.nn.Module:
    """Random weights from torch's stream; the config is checked as that of a language model is."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification

    with torch.device("meta"):  # the config alone: nothing is allocated, nothing drawn
        plain: PreTrainedModel = pretrained_weights.from_config(spec, codec)
    config = plain.config
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UserError(
            f"transformers has no '{config.model_type}' with a head of its own", where="model.config.model_type",
            fix="Use llama, gpt2, gpt_neox, qwen2, …",
        )
    config.num_labels = outputs
    config.use_cache = False
    module: torch.nn.Module = AutoModelForSequenceClassification.from_config(config, **form.config_arguments())
    return _headed(module, codec, "model.config")


def from_files(
    folder: str | None, hub: str | None, outputs: int, form: WeightFormat
) -> tuple[torch.nn.Module, Codec, bool]:
    """Weights, tokenizer, and whether the head was stored; on a plain language model it is initialized at random.

    Adapters of a saved folder are merged into the initial weights.
    """
    found = located(
        folder, hub, lambda name, where, local: _read(name, outputs, where, form, local=local, dropout=False)
    )
    if folder is not None:
        adapter_files.load(found[0], Path(folder))
        injection.merge(found[0])
    return found


def load(folder: Path, outputs: int, form: WeightFormat) -> tuple[torch.nn.Module, Codec]:
    """What ``pretrained_weights.save`` wrote of such a module, adapters on."""
    module, codec, headed = _read(str(folder), outputs, str(folder), form, local=True, dropout=True)
    if not headed:
        raise UserError("the head is missing, and would have been random", where=str(folder),
                        fix="Use another checkpoint.")
    inner: Any = module
    inner.base_file = pretrained_weights.weights_file(folder)
    adapter_files.load(module, folder)
    return module, codec


def _read(
    name: str, outputs: int, where: str, weights: WeightFormat, *, local: bool, dropout: bool
) -> tuple[torch.nn.Module, Codec, bool]:
    form = _hub.Form(
        "AutoModelForSequenceClassification", unfit=f" with a head of {outputs}", random=_HEAD, padded=True,
        needs="It needs config.json, model.safetensors and tokenizer.json, all whole, of a causal "
              "language model, with the same number of outputs if it has a head.",
        whole="Give a causal language model.", config={"num_labels": outputs, "use_cache": False},
        format=weights,
    )
    module, codec, headed = _hub.read(form, name, where, local=local, dropout=dropout)
    return _headed(module, codec, where), codec, headed


def _headed(module: torch.nn.Module, codec: Codec, where: str) -> torch.nn.Module:
    """The module, its padding that of ``codec``: by it the library finds the last token."""
    inner: PreTrainedModel = unwrapped(module)
    if not isinstance(getattr(inner, _HEAD, None), torch.nn.Linear):
        raise UserError(
            f"the head of a '{inner.config.model_type}' is not read at the last token", where=where,
            fix="Use a causal language model: llama, gpt2, gpt_neox, qwen2, …",
        )
    inner.config.pad_token_id = codec.pad
    getattr(inner, _HEAD).register_forward_pre_hook(_in_precision_of_head)
    inner.config.get_text_config().pad_token_id = codec.pad
    return module


def _in_precision_of_head(head: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A head is trained in float32, also on a base of fewer bits."""
    weight: Any = head.weight
    return (inputs[0].to(weight.dtype), *inputs[1:])

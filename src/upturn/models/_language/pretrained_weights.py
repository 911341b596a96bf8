"""Weights of causal language models: from a config, a folder or the hub; equal weights are saved as equal bytes."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from upturn.adapter_layers import adapter_files, heads, injection
from upturn.adapter_layers.injection import quantized
from upturn.data.tokenizers import Codec
from upturn.embeddings.pretrained import located, quiet, without_dropout
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._hub import GENERATION, Form, read, read_without_weights
from upturn.models._weight_format import PLAIN, WeightFormat
from upturn.store import bases
from upturn.store.files import to_json
from upturn.store.weights import digest, linked

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_CONFIGS, _WEIGHTS = ("config.json", GENERATION), "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")  # the base, and the head on it
_INDEX = "model.safetensors.index.json"
_FORM = Form(
    "AutoModelForCausalLM", needs="It needs config.json, model.safetensors and tokenizer.json, all whole.",
    whole="Give a causal language model, with its head.",
)
_EVERYTHING = "100TB"  # one file of any size: the saved files do not depend on the library's shard size


def from_config(
    spec: Mapping[str, Any], codec: Codec, form: WeightFormat = PLAIN
) -> torch.nn.Module:
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
    arguments = form.config_arguments()
    try:
        with quiet():
            config = AutoConfig.for_model(name, **{**given, **ids})
            without_dropout(config, given)
            module: torch.nn.Module = AutoModelForCausalLM.from_config(config, **arguments)
    except Exception as error:  # each architecture checks its config in its own way
        lines = str(error.__cause__ or error).strip().splitlines()
        raise UserError(
            f"no {name} can be built from this: {lines[0] if lines else error!r}", where="model.config",
            fix="Fix the values.",
        ) from error
    return module


def from_files(folder: str | None, hub: str | None, form: WeightFormat) -> tuple[torch.nn.Module, Codec]:
    """A pre-trained model and its tokenizer; the hub's local cache is tried before the network.

    Adapters in a folder that a run saved are on.
    """
    try:
        module, codec, _ = located(
            folder, hub,
            lambda name, where, local: read(replace(_FORM, format=form), name, where, local=local, dropout=False),
        )
    except UserError as error:
        if folder is not None:
            raise
        raise UserError(
            f"'{hub}' is neither in the local cache nor can it be fetched: {error.what}", where="model.hub",
            fix=f"Fetch it where there is a network (hf download {hub}), or give a local folder.",
        ) from error
    if folder is not None:
        adapter_files.load(unwrapped(module), Path(folder))
    return module, codec


def tokenizer_and_config(folder: str | None, hub: str | None) -> tuple[Codec, PretrainedConfig]:
    """The tokenizer and the config of a pre-trained model, without its weights."""
    return located(folder, hub, lambda name, where, local: read_without_weights(_FORM, name, where, local=local))


def load(folder: Path, form: WeightFormat) -> tuple[torch.nn.Module, Codec]:
    """What ``save`` wrote, adapters on."""
    module, codec, _ = read(replace(_FORM, format=form), str(folder), str(folder), local=True, dropout=True)
    inner: Any = module
    inner.base_file = weights_file(folder)
    heads.load(inner, folder)
    adapter_files.load(inner, folder)
    return module, codec


def weights_file(folder: Path) -> Path:
    """The file of the base in a folder that ``save`` wrote."""
    return next((folder / name for name in SHARDS[:1] if (folder / name).is_file()), folder / _WEIGHTS)


def unchanged(module: torch.nn.Module) -> None:
    """Notes that the base is as its files gave it: a run stores it once, while it stays so (``store.bases``)."""
    inner: Any = unwrapped(module)
    with injection.plain(inner):
        inner.base_digest = digest(_base(inner))


def save(module: torch.nn.Module, folder: Path) -> None:
    """config.json, generation_config.json and one model.safetensors, without paths or times; adapters and heads.

    A base that has not changed since it was loaded is linked, not written again. A base from files is apart from the
    head of a class for sequences, in the first of two files: the head changes, the base often does not.
    """
    inner: Any = unwrapped(module)
    inner.config._name_or_path = ""
    inner.name_or_path = ""
    folder.mkdir(parents=True, exist_ok=True)
    with quiet(), injection.plain(inner), _generation_as_given(inner, folder):
        head = _head(inner) if _apart(inner) else {}
        at, base = folder / (SHARDS[0] if head else _WEIGHTS), _base(inner) if head else inner.state_dict()
        # weights that were read in 4 bits have no other form to go back to
        options = {"save_original_format": False} if quantized(inner) else {}
        save = partial(inner.save_pretrained, str(folder), **options)
        save(state_dict={})  # the configs alone; it removes files named as shards
        source = _linked(inner, at, base)
        if source is None:
            save(state_dict=base if head else None, max_shard_size=_EVERYTHING)
            (folder / _WEIGHTS).rename(at)
            _keep(inner, at, base)
        else:
            for name in _CONFIGS:
                if (source.parent / name).is_file():
                    shutil.copyfile(source.parent / name, folder / name)
        if head:
            _write_head(head, folder)
    heads.save(inner, folder)
    adapter_files.save(inner, folder)


@contextmanager
def _generation_as_given(inner: Any, folder: Path) -> Iterator[None]:
    """generation_config.json in ``folder`` is as it was read: the library refuses to write some that it reads."""
    text: str | None = getattr(inner, "generation_text", None)
    if text is None or not inner.can_generate():
        yield
        return
    from transformers import GenerationConfig

    kept, inner.generation_config = inner.generation_config, GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = kept
    (folder / GENERATION).write_text(text, encoding="utf-8")


def _linked(inner: Any, at: Path, base: Mapping[str, torch.Tensor]) -> Path | None:
    """The file that holds this base and is now linked as ``at``, None where there is none."""
    source: Path | None = getattr(inner, "base_file", None)
    if linked(source, at, base):
        return source
    known: str | None = getattr(inner, "base_digest", None)
    stored = None if known is None else bases.entry(at, known)
    return stored if linked(stored, at, base) else None


def _keep(inner: Any, at: Path, base: Mapping[str, torch.Tensor]) -> None:
    """Into the store, where the base is still as its files gave it."""
    known: str | None = getattr(inner, "base_digest", None)
    if known is not None and bases.entry(at, known) is not None and digest(base) == known:
        bases.keep(at, known)


def _apart(inner: Any) -> bool:
    source: Path | None = getattr(inner, "base_file", None)
    return hasattr(inner, "base_digest") or (source is not None and source.name == SHARDS[0])


def _head(inner: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in inner.state_dict().items() if name.partition(".")[0] in heads.OWN}


def _base(inner: Any) -> dict[str, torch.Tensor]:
    head = _head(inner)
    return {name: value for name, value in inner.state_dict().items() if name not in head}


def _write_head(head: Mapping[str, torch.Tensor], folder: Path) -> None:
    """The second file, and the index by which the library finds both."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous() for name, value in head.items()}, folder / SHARDS[1],
              metadata={"format": "pt"})
    places: dict[str, str] = {}
    for name in SHARDS:
        with safe_open(folder / name, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), name)
    size = sum((folder / name).stat().st_size for name in SHARDS)
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / _INDEX).write_text(to_json(index), encoding="utf-8")

"""Reads models of `transformers` from a folder or the hub: safetensors only, no remote code, no random weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.data.tokenizers import Codec, settle
from upturn.embeddings.pretrained import quiet, without_dropout
from upturn.errors import UserError
from upturn.models._weight_format import PLAIN, WeightFormat

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Form:
    """How a folder is read, and the messages for a folder that cannot be read.

    auto    the class of `transformers`, "AutoModelForCausalLM"
    config  keys set on the config before the weights are read
    format  data type, quantization and attention
    padded  the tokenizer gets a pad token of its own: the model finds the last token by it
    random  a module whose weights may be missing: it was initialized at random, and the result says so
    unfit   after "the model '…' cannot be read"
    needs   the files that it must have, as a fix;  whole  the same where weights are missing
    """

    auto: str
    needs: str
    whole: str
    unfit: str = ""
    random: str = ""
    padded: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    format: WeightFormat = PLAIN


def read(form: Form, name: str, where: str, *, local: bool, dropout: bool) -> tuple[torch.nn.Module, Codec, bool]:
    """A model, its tokenizer, and whether every weight was there: False where ``form.random`` was missing.

    ``dropout`` keeps the rates of the config. Raises UserError where something cannot be read or is missing.
    """
    import transformers

    arguments = form.format.read_arguments()
    with _readable(form, name, where), quiet():
        config, tokenizer = _config_and_tokenizer(name, local)
        if not dropout:
            without_dropout(config, {})
        if getattr(config, "quantization_config", None) is not None:
            arguments.pop("quantization_config", None)  # it was saved in 4 bits
        for key, value in form.config.items():
            setattr(config, key, value)
        module, report = getattr(transformers, form.auto).from_pretrained(
            name, config=config, local_files_only=local, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, **arguments,
        )
    missing = sorted(key for key in report["missing_keys"] if not form.random or not key.startswith(f"{form.random}."))
    if missing:
        raise UserError(
            f"{len(missing)} weights are missing (the first is {missing[0]}) and would have been random",
            where=where, fix=form.whole,
        )
    module.generation_text = _generation_text(name)
    codec, grown = settle(tokenizer, where, padded=form.padded)
    if grown and len(codec.tokenizer) > module.get_input_embeddings().weight.shape[0]:
        module.resize_token_embeddings(len(codec.tokenizer))
    return module, codec, not report["missing_keys"]


def read_without_weights(form: Form, name: str, where: str, *, local: bool) -> tuple[Codec, PretrainedConfig]:
    """The tokenizer and the config alone. Raises UserError where one cannot be read."""
    with _readable(form, name, where), quiet():
        config, tokenizer = _config_and_tokenizer(name, local)
    return settle(tokenizer, where, padded=form.padded)[0], config


def _generation_text(name: str) -> str | None:
    """generation_config.json of a model that was just read, as it is; None where there is none."""
    from huggingface_hub import try_to_load_from_cache

    local = Path(name) / GENERATION
    found = str(local) if local.is_file() else None if Path(name).is_dir() else try_to_load_from_cache(name, GENERATION)
    return Path(found).read_text(encoding="utf-8") if isinstance(found, str) else None


def _config_and_tokenizer(name: str, local: bool) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    import transformers

    config = transformers.AutoConfig.from_pretrained(name, local_files_only=local, trust_remote_code=False)
    return config, transformers.AutoTokenizer.from_pretrained(name, local_files_only=local, trust_remote_code=False)


@contextmanager
def _readable(form: Form, name: str, where: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the readers of weights, JSON and tokenizers raise exceptions of any class
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else repr(error)
        missing = isinstance(error, OSError)  # of the file, whatever the format
        raise (None if missing else form.format.refusal(reason)) or UserError(
            f"the model '{name}' cannot be read{form.unfit}: {reason}", where=where, fix=form.needs,
        ) from error

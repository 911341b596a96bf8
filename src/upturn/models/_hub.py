"""Reading what `transformers` wrote, from a folder or the hub: safetensors, no remote code, nothing left random."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from upturn.errors import UserError
from upturn.models._language.tokenizer import Codec, settle

Found = TypeVar("Found")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's progress bars and advice; its errors are raised, and ours to word."""
    from transformers.utils import logging as library

    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.CRITICAL)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def without_dropout(config: Any, stated: Mapping[str, Any]) -> None:
    """Every rate of dropout that ``stated`` does not name becomes 0."""
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float) and name not in stated:
            setattr(config, name, 0.0)


@dataclass(frozen=True)
class Form:
    """What a folder is read as, and how a person is told that it cannot be.

    auto    the class of `transformers`, "AutoModelForCausalLM"
    config  keys set on the config before the weights are read
    anew    a module whose weights may be missing: it was drawn, and the caller is told
    unfit   after "the model '…' cannot be read"
    needs   the files that it must have, as a fix;  whole  the same where weights are missing
    """

    auto: str
    needs: str
    whole: str
    unfit: str = ""
    anew: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


def located(folder: str | None, hub: str | None, read: Callable[[str, str, bool], Found]) -> Found:
    """``read(name, where, local)`` of a local folder, or of a name: the hub's cache is asked before the network."""
    if folder is not None:
        if not Path(folder).is_dir():
            raise UserError(f"there is no folder '{folder}'", where="model.folder", fix="Give the folder of a model.")
        return read(folder, "model.folder", True)
    try:
        return read(str(hub), "model.hub", True)
    except UserError:
        return read(str(hub), "model.hub", False)


def read(form: Form, name: str, where: str, *, local: bool, dropout: bool) -> tuple[torch.nn.Module, Codec, bool]:
    """A model in float32, its tokenizer, and whether every weight was there: without one of ``form.anew`` it is False.

    ``dropout`` keeps the rates of the config. Raises UserError where something cannot be read or is missing.
    """
    import transformers

    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(name, local_files_only=local, trust_remote_code=False)
            if not dropout:
                without_dropout(config, {})
            for key, value in form.config.items():
                setattr(config, key, value)
            module, report = getattr(transformers, form.auto).from_pretrained(
                name, config=config, local_files_only=local, trust_remote_code=False, use_safetensors=True,
                dtype=torch.float32, output_loading_info=True,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                name, local_files_only=local, trust_remote_code=False
            )
    except Exception as error:  # the readers of weights, JSON and tokenizers raise whatever they like
        said = str(error).strip().splitlines()
        raise UserError(
            f"the model '{name}' cannot be read{form.unfit}: {said[0] if said else repr(error)}", where=where,
            fix=form.needs,
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not form.anew or not key.startswith(f"{form.anew}."))
    if missing:
        raise UserError(
            f"{len(missing)} weights are missing (the first is {missing[0]}) and would have been random",
            where=where, fix=form.whole,
        )
    codec, grown = settle(tokenizer, where)
    if grown and len(codec.tokenizer) > module.get_input_embeddings().weight.shape[0]:
        module.resize_token_embeddings(len(codec.tokenizer))
    return module, codec, not report["missing_keys"]

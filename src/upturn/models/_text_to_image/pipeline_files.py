"""A text-to-image model as a folder: a pipeline that plain ``diffusers`` opens, model.json, and adapters beside it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from upturn.adapter_layers import adapter_files, injection
from upturn.adapter_layers.new_tokens import without
from upturn.diffusion.joint import denoiser_of, trained_encoders
from upturn.diffusion.network_files import save_network
from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError
from upturn.models._text_to_image.pipeline import INDEX, SCHEDULER, Pipeline, from_folder, quiet, tokenizer_of
from upturn.store.files import read_json, to_json
from upturn.store.weights import linked

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SETTINGS, _WEIGHTS = "model.json", "model.safetensors"
_EVERYTHING = "100TB"  # one file whatever the size
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # not read, so not kept
_TRANSIENT = ("is_local", "local_files_only", "name_or_path", "_commit_hash")  # the place that it was read from


class _Part:
    """A part of a pipeline for ``save_network``."""

    def config(self, module: nn.Module) -> Mapping[str, Any]:
        """The arguments of its class; some classes keep more in their config than they take."""
        inner: Any = unwrapped(module)
        taken = inspect.signature(type(inner).__init__).parameters
        kept = {name: value for name, value in dict(inner.config).items() if name in taken}
        return {"_class_name": type(inner).__name__, **kept}


@dataclass(frozen=True)
class Description:
    """model.json."""

    model: str
    size: int  # pixels a side of the model's own square
    train_text: bool
    config: dict[str, Any] | None  # of a small pipeline that was trained from scratch
    frame: dict[str, Any]


def save(folder: Path, pipeline: Pipeline, module: nn.Module, description: Description) -> None:
    """Parts that have not changed since they were loaded from a folder of ours are linked."""
    folder.mkdir(parents=True, exist_ok=True)
    inner = unwrapped(module)
    denoiser = pipeline.family.denoiser
    with without(pipeline.encoders.values()), injection.plain(inner), quiet():
        save_network(_Part(), denoiser_of(inner), folder / denoiser)  # type: ignore[arg-type]
        trained = trained_encoders(inner)
        for name, encoder in trained.items():
            _encoder(encoder, folder / name)
        _frozen(pipeline, trained, folder)
    adapter_files.save(inner, folder)
    index = {name: value for name, value in pipeline.index.items() if name != "_name_or_path"}
    for name in _UNUSED:
        if name in index:
            index[name] = [None, None]
    if "requires_safety_checker" in index:
        index["requires_safety_checker"] = False
    (folder / INDEX).write_text(to_json(index), encoding="utf-8")
    (folder / SCHEDULER).mkdir(exist_ok=True)
    (folder / SCHEDULER / "scheduler_config.json").write_text(to_json(pipeline.scheduler), encoding="utf-8")
    (folder / _SETTINGS).write_text(to_json(asdict(description)), encoding="utf-8")


def _frozen(pipeline: Pipeline, trained: Iterable[str], folder: Path) -> None:
    frozen = [name for name in pipeline.encoders if name not in trained]
    for name in ("vae", *frozen, *map(tokenizer_of, pipeline.tokenizers)):
        if pipeline.origin is not None:
            _link(pipeline.origin / name, folder / name)
        elif name == "vae":
            save_network(_Part(), pipeline.vae, folder / name)  # type: ignore[arg-type]
        elif name in frozen:
            _encoder(pipeline.encoders[name], folder / name)
    if pipeline.origin is None:
        for name, tokenizer in pipeline.tokenizers.items():
            _tokenizer(tokenizer, folder / tokenizer_of(name))


def _link(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        (target / path.name).unlink(missing_ok=True)
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)


def _encoder(encoder: PreTrainedModel, folder: Path) -> None:
    encoder.config._name_or_path = ""
    encoder.name_or_path = ""
    folder.mkdir(parents=True, exist_ok=True)
    source: Path | None = getattr(encoder, "base_file", None)
    if linked(source, folder / _WEIGHTS, encoder.state_dict()):
        assert source is not None
        shutil.copyfile(source.parent / "config.json", folder / "config.json")
        return
    encoder.save_pretrained(str(folder), max_shard_size=_EVERYTHING)


def _tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The same bytes independent of its origin and its use."""
    raw = tokenizer.backend_tokenizer
    raw.no_padding()
    raw.no_truncation()
    tokenizer.save_pretrained(str(folder))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for transient in _TRANSIENT:
        settings.pop(transient, None)
    path.write_text(to_json(settings), encoding="utf-8")


def load(folder: Path, model: str, size: int | None, config: Mapping[str, Any], train_text: bool) -> tuple[
    Pipeline, Description
]:
    """The pipeline of ``save`` and model.json.

    Raises UserError where it contradicts the model's name, its ``size``, a key of its ``config`` or ``train_text``.
    """
    path = folder / _SETTINGS
    saved = read_json(path)
    if not isinstance(saved, dict) or not {"model", "size", "train_text", "config"} <= saved.keys():
        raise UserError("this is not the description of a text-to-image model", where=str(path), fix="It is damaged.")
    if saved["model"] != model:
        raise UserError(f"a model '{saved['model']}' is saved here, not '{model}'", where=str(path))
    if size not in (None, saved["size"]):
        raise UserError(
            f"size is {saved['size']} in the saved model, but {size} was requested", where=str(path),
            fix="Change 'size:' of the model, or train it from scratch.",
        )
    for key, value in config.items():
        if saved["config"] is not None and saved["config"].get(key) != value:
            raise UserError(
                f"config.{key} is {saved['config'].get(key)!r} in the saved model, but {value!r} was requested",
                where=str(path), fix=f"Change '{key}:' of the config, or train it from scratch.",
            )
    if (folder / adapter_files.FOLDER).is_dir() and saved["train_text"] != train_text:
        raise UserError(
            f"its adapters were trained with train_text: {str(saved['train_text']).lower()}", where=str(path),
            fix="Set the same.",
        )
    pipeline = from_folder(folder, str(folder), own=True)
    for name, encoder in pipeline.encoders.items():
        encoder.base_file = folder / name / _WEIGHTS
    frame = saved.get("frame", {})
    return pipeline, Description(model, int(saved["size"]), saved["train_text"], saved["config"], frame)

"""A folder of ``diffusers`` with a text-to-image pipeline: its family, its files and its parts."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from upturn.diffusion import scheduled
from upturn.errors import UserError
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.architectures.flux import Flux
from upturn.models._text_to_image.architectures.pixart import PixArt
from upturn.models._text_to_image.architectures.sd3 import StableDiffusion3
from upturn.models._text_to_image.architectures.stable_diffusion import StableDiffusion, StableDiffusionXl
from upturn.store.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FAMILIES: tuple[type[Family], ...] = (StableDiffusion, StableDiffusionXl, StableDiffusion3, Flux, PixArt)
INDEX, SCHEDULER = "model_index.json", "scheduler"
_LIBRARIES = ("diffusers", "transformers")
_HUB = ("*.json", "*.txt", "*.model", "*.safetensors")  # never pickles, never code


@dataclass(eq=False)
class Pipeline:
    """The parts of a pipeline, in float32 on the CPU, nothing trained."""

    family: Family
    index: dict[str, Any]  # model_index.json
    scheduler: dict[str, Any]
    denoiser: nn.Module
    vae: nn.Module
    encoders: dict[str, PreTrainedModel]
    tokenizers: dict[str, PreTrainedTokenizerBase]  # by the name of the encoder that reads it
    origin: Path | None = None  # a folder of ours, whose files may be linked

    @property
    def frozen_folders(self) -> dict[str, object]:
        """Folders of the untrained parts: tokenizers and the autoencoder."""
        return {"vae": self.vae, **{tokenizer_of(name): found for name, found in self.tokenizers.items()}}


def tokenizer_of(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def supported() -> str:
    return ", ".join(name for family in FAMILIES for name in family.pipelines)


def family_of(folder: Path, where: str) -> Family:
    """The family of a pipeline folder, all that can be known without weights checked.

    Raises UserError naming what is not supported: the pipeline's class, a component's, its config, its scheduler.
    """
    if not (folder / INDEX).is_file():
        raise UserError(
            f"'{folder}' has no {INDEX}", where=where, fix="Give the folder of a whole pipeline of diffusers."
        )
    index = read_json(folder / INDEX)
    name = index.get("_class_name")
    found = next((family for family in FAMILIES if name in family.pipelines), None)
    if found is None:
        raise UserError(f"the pipeline {name} is not supported", where=where, fix=f"Supported: {supported()}.")
    family = found(index)
    configs: dict[str, Mapping[str, Any]] = {}
    for part, classes in family.components.items():
        library, cls = _entry(index, part)
        if cls is None and part in family.optional:
            continue
        if library not in _LIBRARIES or cls not in classes:
            raise UserError(
                f"the {part} of this {name} is {library}.{cls}, which is not supported", where=where,
                fix=f"It must be {' or '.join(classes)}; code of its own is never run.",
            )
        if not part.startswith("tokenizer"):
            configs[part] = read_json(folder / part / "config.json")
    odd = family.check(configs) or _odd_vae(configs)
    if odd:
        raise UserError(f"{odd} is not supported", where=where, fix="Give a plain text-to-image checkpoint.")
    scheduled.check(read_json(folder / SCHEDULER / "scheduler_config.json"), where)
    return family


def _entry(index: Mapping[str, Any], part: str) -> tuple[str | None, str | None]:
    entry = index.get(part)
    if isinstance(entry, list) and len(entry) == 2:
        return entry[0], entry[1]
    return None, None


def _odd_vae(configs: Mapping[str, Mapping[str, Any]]) -> str:
    for key in ("latents_mean", "latents_std"):
        if configs["vae"].get(key) is not None:
            return f"an autoencoder with {key}"
    return ""


def from_folder(folder: Path, where: str, *, own: bool = False) -> Pipeline:
    """All parts of the folder, in float32; ``own``: a folder that we wrote, whose files later ones may link.

    Raises UserError naming the part that is missing, damaged, incomplete or kept as a pickle.
    """
    family = family_of(folder, where)
    index = read_json(folder / INDEX)
    parts = {name: _part(folder, name, index, where) for name in family.components if _entry(index, name)[1]}
    denoiser = parts.pop(family.denoiser)
    if own:
        denoiser.base_file = folder / family.denoiser / "diffusion_pytorch_model.safetensors"
    encoders = {name: parts[name] for name in family.encoders if name in parts}
    for encoder in encoders.values():
        _without_dropout(encoder)
    for module in (parts["vae"], *encoders.values()):
        module.eval().requires_grad_(False)
    return Pipeline(
        family, index, read_json(folder / SCHEDULER / "scheduler_config.json"), denoiser, parts["vae"], encoders,
        {name: parts[tokenizer_of(name)] for name in encoders}, folder if own else None,
    )


def _without_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


def _part(folder: Path, name: str, index: Mapping[str, Any], where: str) -> PreTrainedModel | PreTrainedTokenizerBase:
    library, cls = _entry(index, name)
    at = folder / name
    if not at.is_dir():
        raise UserError(f"the pipeline has no folder '{name}'", where=where, fix="Give a whole pipeline of diffusers.")
    cls_object = getattr(importlib.import_module(str(library)), str(cls))
    options: dict[str, Any] = {"local_files_only": True}
    if not name.startswith("tokenizer"):
        precision = {"torch_dtype" if library == "diffusers" else "dtype": torch.float32}
        options |= {"use_safetensors": True, "output_loading_info": True, **precision}
    try:
        with quiet():
            found = cls_object.from_pretrained(str(at), **options)
    except Exception as error:  # the readers of weights, JSON and tokenizers raise exceptions of any class
        lines = str(error).strip().splitlines()
        raise UserError(
            f"its {name} cannot be read: {lines[0] if lines else repr(error)}", where=str(at),
            fix="It needs config.json and whole weights as safetensors, not pickles nor 'fp16' files alone.",
        ) from error
    if name.startswith("tokenizer"):
        return found
    module, report = found
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{len(missing)} weights are missing (the first is {missing[0]}) and would have been random", where=str(at),
            fix="Give a whole checkpoint.",
        )
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and warnings; their errors are still raised."""
    import diffusers.utils.logging as ours
    import transformers.utils.logging as theirs

    levels = [(library, library.get_verbosity()) for library in (ours, theirs)]
    bars = theirs.is_progress_bar_enabled(), ours.is_progress_bar_enabled()
    for library in (ours, theirs):
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
        for library, enabled in zip((theirs, ours), bars, strict=True):
            if enabled:
                library.enable_progress_bar()


def hub_folder(name: str, where: str) -> Path:
    """Where the hub's files are, fetched if they are not in the local cache: safetensors, JSON and tokenizers alone."""
    from huggingface_hub import snapshot_download

    last: Exception | None = None
    for local in (True, False):
        try:
            return Path(snapshot_download(name, allow_patterns=list(_HUB), local_files_only=local))
        except Exception as error:  # network, permissions, names: each has its own class
            last = error
    raise UserError(
        f"'{name}' is neither in the local cache nor can it be fetched: {str(last).strip().splitlines()[0]}",
        where=where, fix=f"Fetch it where there is a network (hf download {name}), or give a local folder.",
    ) from last


def cached(name: str) -> Path | None:
    """The folder of a hub's pipeline in the local cache, where its index is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, INDEX)
    return Path(found).parent if isinstance(found, str) else None


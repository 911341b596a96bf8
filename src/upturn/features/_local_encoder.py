"""A ``transformers`` encoder from a folder, or an error that names what the folder lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.errors import UserError
from upturn.types import Kind

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SIZE = 224  # pixels, where neither config nor preprocessor names one (ViT's)


def load(folder: Path, kind: Kind) -> tuple[Any, Any]:
    """(encoder in evaluation mode, tokenizer or None). UserError where the folder is not such an encoder.

    Of a model with a text and an image tower (CLIP) the tower of this kind is taken, of an encoder–decoder the encoder.
    """
    _check(folder)
    from transformers import AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True) if kind == "text" else None
    except Exception as error:
        raise UserError(
            f"cannot be opened as an encoder of {kind}: {_first_line(error)}", where=str(folder),
            fix="It must be what 'save_pretrained' writes: config, safetensors and, for text, the tokenizer.",
        ) from error
    tower = getattr(model, "text_model" if kind == "text" else "vision_model", model)
    if getattr(model.config, "is_encoder_decoder", False):
        tower = model.get_encoder()
    expected = "input_ids" if kind == "text" else "pixel_values"
    if getattr(model, "main_input_name", expected) != expected and tower is model:
        raise UserError(
            f"this encoder reads {model.main_input_name}, and the samples are {kind}", where=str(folder),
            fix="Name an encoder of that kind.",
        )
    return tower.eval(), tokenizer


def preparation(folder: Path, config: PretrainedConfig) -> tuple[tuple[int, int], list[float], list[float]]:
    """((height, width), mean, std): the encoder's preparation of images; mean and std one number a channel."""
    path = folder / "preprocessor_config.json"
    given: dict[str, Any] = {}
    if path.is_file():
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"is not JSON: {error}", where=str(path), fix="Fix or remove it.") from error
    size: Any = getattr(config, "image_size", None) or given.get("crop_size") or given.get("size") or _SIZE
    if isinstance(size, dict):
        edge = size.get("shortest_edge", _SIZE)
        size = (size.get("height", edge), size.get("width", edge))
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    channels = getattr(config, "num_channels", 3)
    mean, std = given.get("image_mean") or [0.5] * channels, given.get("image_std") or [0.5] * channels
    if given.get("do_normalize") is False:
        mean, std = [0.0] * channels, [1.0] * channels
    return (int(height), int(width)), mean, std


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError("there is no such folder", where=f"features.folder: {folder}",
                        fix="Give the folder of an encoder on this machine; nothing is fetched.")
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise UserError(
            f"has no config.json; there: {', '.join(names[:8]) or 'nothing'}", where=f"features.folder: {folder}",
            fix="Give the folder that 'save_pretrained' wrote.",
        )
    if not any(name.endswith(".safetensors") for name in names):
        raise UserError(
            f"has no *.safetensors; there: {', '.join(names[:8])}", where=f"features.folder: {folder}",
            fix="Pickled weights are not read: save the encoder again with 'save_pretrained'.",
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

"""Captions images with any image-to-text model of ``transformers``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upturn.errors import UserError
from upturn.store import files
from upturn.types import Array

if TYPE_CHECKING:
    from PIL import Image
    from transformers import BatchFeature

_NO_CODE = {"trust_remote_code": False}


def weights_id(place: str, local: bool, where: str) -> str:
    """The identity of the weights: the hash of all files of a folder, the commit of a hub model."""
    if local:
        folder = Path(place).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"'{folder}' has no config.json", where=where, fix="Give the folder of a saved image-to-text model."
            )
        return files.tree_hash(folder)
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(place, **_NO_CODE)
    except (OSError, ValueError) as error:
        raise _unreadable(place, where, error) from error
    return str(getattr(found, "_commit_hash", None) or "unknown commit")


@dataclass(frozen=True)
class Captioner:
    """A loaded model with what reads images and writes words for it."""

    model: Any
    images: Any
    tokenizer: Any
    processor: Any  # of models that read images and text as one; None elsewhere

    def write(self, images: Array, prompt: str, max_tokens: int) -> list[str]:
        """(N, H, W, C) uint8 -> N captions, the most probable word each time."""
        import torch

        inputs = self._inputs([_pil_image(row) for row in images], prompt).to(self.model.device)
        with torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1)
        given = inputs.get("input_ids")
        if given is not None and out.shape[1] >= given.shape[1] and bool((out[:, : given.shape[1]] == given).all()):
            out = out[:, given.shape[1] :]  # decoder-only models repeat the prompt
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(out, skip_special_tokens=True)]

    def _inputs(self, images: Sequence[Image.Image], prompt: str) -> BatchFeature:
        if self.processor is None:
            return self.images(images=images, return_tensors="pt")
        if getattr(self.processor, "chat_template", None):
            messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}]
            text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
            nested = [[image] for image in images]
            return self.processor(images=nested, text=[text] * len(images), return_tensors="pt", padding=True)
        if not prompt:
            return self.processor(images=images, return_tensors="pt")
        return self.processor(images=images, text=[prompt] * len(images), return_tensors="pt", padding=True)


def load(place: str, where: str) -> Captioner:
    """Raises UserError where the model is not image-to-text, or its weights are not safetensors."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    place = str(Path(place).expanduser()) if Path(place).expanduser().is_dir() else place
    try:
        model = AutoModelForImageTextToText.from_pretrained(place, use_safetensors=True, **_NO_CODE)
        processor = AutoProcessor.from_pretrained(place, **_NO_CODE)
        whole = hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")
        images = processor.image_processor if whole else AutoImageProcessor.from_pretrained(place, **_NO_CODE)
        tokenizer = processor.tokenizer if whole else AutoTokenizer.from_pretrained(place, **_NO_CODE)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(place, where, error) from error
    tokenizer.padding_side = "left"  # the completion follows the prompt
    joint = whole and model.config.model_type != "vision-encoder-decoder"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Captioner(model.to(device).eval(), images, tokenizer, processor if joint else None)


def chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _pil_image(row: Array) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.repeat(row, 3, axis=2) if row.shape[2] == 1 else row[..., :3])


def _unreadable(place: str, where: str, error: Exception) -> UserError:
    return UserError(
        f"'{place}' cannot be loaded as an image-to-text model: {str(error).splitlines()[0]}", where=where,
        fix="Give a folder, or the hub name, of a model that AutoModelForImageTextToText opens, with safetensors.",
    )

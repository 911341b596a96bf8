"""Images and texts as tensors, by the processors that a model of `transformers` was saved with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from upturn.embeddings.image_tensors import RGB, coloured
from upturn.types import Array

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

_RESAMPLE = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


@dataclass(frozen=True)
class Reader:
    """Prepares images and texts as the model's own processors do.

    Images are resized with antialiasing as tensors, many at once; the library's own processor rounds to whole
    levels in between, so that values differ by about 1/255.
    """

    tokenizer: Any
    processor: Any  # the image processor
    length: int
    fixed: bool  # every text is padded to ``length``, and nothing is masked

    def pixels(self, content: Array | Tensor) -> Tensor:
        """(N, 3, h, w) float32 of (N, H, W, C) uint8."""
        images = coloured(np.asarray(content)).float()
        size = _size(self.processor)
        if tuple(images.shape[2:]) != size:
            mode = _RESAMPLE.get(int(getattr(self.processor, "resample", 3) or 0), "bicubic")
            smooth: dict[str, Any] = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
            images = nn.functional.interpolate(images, size, mode=mode, **smooth).clamp(0, 255)
        if getattr(self.processor, "do_rescale", True):
            images = images * getattr(self.processor, "rescale_factor", 1 / 255)
        if not getattr(self.processor, "do_normalize", True):
            return images
        mean, std = (torch.tensor(v).view(1, RGB, 1, 1) for v in (self.processor.image_mean, self.processor.image_std))
        return (images - mean) / std

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, int]:
        """(N, L) ids, (N, L) mask, and how many texts were cut."""
        found = self.tokenizer(
            list(texts), padding="max_length" if self.fixed else True, truncation=True, max_length=self.length,
            return_tensors="pt", return_attention_mask=True,
        )
        full = [text for text, row in zip(texts, found["attention_mask"], strict=True) if int(row.sum()) >= self.length]
        whole = self.tokenizer(full, verbose=False)["input_ids"] if full else []
        return found["input_ids"], found["attention_mask"], sum(len(row) > self.length for row in whole)


def _size(processor: BaseImageProcessor) -> tuple[int, int]:
    """The size that a square image gets: the crop where there is one."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    wanted: dict[str, Any] = dict(crop or processor.size)
    edge: Any = wanted.get("shortest_edge", wanted.get("longest_edge"))
    return int(wanted.get("height", edge)), int(wanted.get("width", edge))

"""Diffusion of images, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.models._diffusion.class_conditional import ClassDiffusion
from upturn.models._diffusion.normalization import Frame
from upturn.types import Array, Kind

_HALF = 127.5  # 8-bit values 0 to 255 are -1 to 1, as diffusers has them


@dataclass(eq=False)
class Pixels(ClassDiffusion):
    """Diffusion of square images (N, H, H, C) uint8, of a class or unconditional, pixel by pixel.

    The network sees -1 to 1, (N, C, H, H); take ``mlp`` at 8x8, ``unet`` from 16x16 up.
    """

    size: int | None = None  # None: as the examples are
    channels: int | None = None

    name: ClassVar[str] = "pixels"
    kind: ClassVar[Kind] = "image"

    def measure(self, content: Array) -> Frame:
        shape = content.shape[1:]
        fits = content.ndim == 4 and shape[0] == shape[1] and content.dtype == np.uint8
        if not fits or self.size not in {None, shape[0]} or self.channels not in {None, shape[2]}:
            wanted = f"{self.size or 'H'}x{self.size or 'H'}x{self.channels or 'C'}"
            raise UserError(
                f"the examples are {content.dtype} of shape {'x'.join(map(str, shape))}, the model takes square uint8 "
                f"images of {wanted}", where="model.size", fix="Leave out 'size:' and 'channels:', or resize them.",
            )
        self.size, self.channels = shape[0], shape[2]
        rms = float(np.sqrt(np.square(content / _HALF - 1.0).mean()))
        return Frame((shape[2], shape[0], shape[0]), (0.0,) * shape[2], 1.0, rms)

    def column(self, content: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(content.transpose(0, 3, 1, 2)))

    def into(self, column: Tensor) -> Tensor:
        return column.float() / _HALF - 1.0

    def content(self, generated: Tensor) -> Array:
        images = ((generated.clamp(-1, 1) + 1) * _HALF).round().to(torch.uint8)
        return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())

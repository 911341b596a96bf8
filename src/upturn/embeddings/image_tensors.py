"""Images as tensors for networks: three channels, resized, scaled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from upturn.types import Array, by_size

if TYPE_CHECKING:
    from torch import Tensor

RGB = 3


def coloured(content: Array) -> Tensor:
    """(N, 3, H, W) uint8 of (N, H, W, C) uint8: grey is repeated, and an alpha channel laid over white."""
    import torch

    images = torch.from_numpy(np.array(content)).permute(0, 3, 1, 2)
    if images.shape[1] in (2, RGB + 1):
        alpha = images[:, -1:].float() / 255
        images = (images[:, :-1].float() * alpha + 255 * (1 - alpha)).round().to(torch.uint8)
    return images.expand(-1, RGB, -1, -1) if images.shape[1] == 1 else images


def prepared(content: Array, size: tuple[int, int], mean: list[float], std: list[float]) -> Tensor:
    """(N, len(mean), *size) float32: resized (bilinear, antialiased), from 0…255 to 0…1, then (x - mean) / std."""
    import torch

    if content.dtype == object:
        out = torch.zeros((len(content), len(mean), *size))
        for rows, batch in by_size(content):
            out[torch.from_numpy(rows)] = prepared(batch, size, mean, std)
        return out
    pixels = coloured(content).float() / 255
    if tuple(pixels.shape[2:]) != size:
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    if len(mean) == 1:
        pixels = pixels.mean(1, keepdim=True)
    return (pixels - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)

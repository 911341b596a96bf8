"""Conversion between the data's units and the coordinates of a diffusion network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from upturn.diffusion.denoiser import Denoise
from upturn.errors import UserError


@dataclass(frozen=True)
class Frame:
    """data = mean + scale * network; ``shape`` of one row as the network sees it."""

    shape: tuple[int, ...]
    mean: tuple[float, ...]  # a number a channel or dimension: the first of ``shape``
    scale: float
    rms: float  # root mean square of the training data in the network's coordinates

    def offset(self, like: Tensor) -> Tensor:
        return torch.tensor(self.mean, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (len(self.shape) - 1))

    def into(self, data: Tensor) -> Tensor:
        """(N, *shape) of the data in the network's coordinates."""
        return (data - self.offset(data)) / self.scale

    def back(self, rows: Tensor) -> Tensor:
        """(N, *shape) of the network's coordinates in the data's units."""
        return rows * self.scale + self.offset(rows)


def carried(denoise: Denoise, of: Frame, into: Frame) -> Denoise:
    """A denoiser of one frame in another: two models of the same data may have been standardised differently."""
    if of.shape != into.shape:
        raise UserError(
            f"the guide generates {of.shape}, the model {into.shape}", where="settings.guide",
            fix="Guide with a model of the same data.",
        )
    ratio = into.scale / of.scale

    def moved(x: Tensor, sigma: Tensor) -> Tensor:
        step = (into.offset(x) - of.offset(x)) / of.scale
        return (denoise(x * ratio + step, sigma * ratio) - step) / ratio

    return moved

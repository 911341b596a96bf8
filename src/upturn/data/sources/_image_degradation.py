"""Degrades small images as a bad photograph does: shifted, blurred, partly hidden, noisy."""

from __future__ import annotations

import numpy as np

from upturn import seeds
from upturn.types import Array

_BLUR = np.array([0.25, 0.5, 0.25])  # one binomial pass per side
_NOISE = 25.0  # standard deviation, of 255 grey levels
_HIDDEN = 1 / 4  # side of the hidden square, as a share of the image's


def _blurred(images: Array) -> Array:
    for axis in (1, 2):
        width = [(0, 0)] * images.ndim
        width[axis] = (1, 1)
        padded = np.pad(images, width, mode="edge")
        size = images.shape[axis]
        pieces = [np.take(padded, range(start, start + size), axis=axis) for start in range(3)]
        images = sum((w * piece for w, piece in zip(_BLUR, pieces, strict=True)), np.zeros_like(images))
    return images


def degraded(images: Array, keys: Array) -> Array:
    """(N, H, W, C) uint8 degraded images, row i from ``keys[i]`` alone: shifted by up to one pixel each way, blurred,
    a square of a quarter of the side hidden at a random place, Gaussian noise of 25 grey levels.
    """
    n, height, width, _ = images.shape
    chance = seeds.uniform(keys, (4,)).numpy()
    rows, columns = np.arange(height)[None, :], np.arange(width)[None, :]
    down, right = (np.floor(chance[:, i : i + 1] * 3).astype(int) - 1 for i in (0, 1))
    each = np.arange(n)[:, None, None]
    from_row, from_column = (rows - down)[:, :, None], (columns - right)[:, None, :]
    inside = (from_row >= 0) & (from_row < height) & (from_column >= 0) & (from_column < width)
    moved = images[each, from_row.clip(0, height - 1), from_column.clip(0, width - 1)] * inside[..., None]
    out = _blurred(moved.astype(np.float64))
    side = max(1, round(_HIDDEN * min(height, width)))
    top = np.floor(chance[:, 2:3] * (height - side + 1)).astype(int)
    left = np.floor(chance[:, 3:4] * (width - side + 1)).astype(int)
    across, along = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
    hidden = across[:, :, None] & along[:, None, :]
    out = np.where(hidden[..., None], 0.0, out)
    noise = seeds.normal(keys, images.shape[1:], stream=1).numpy()
    return np.asarray((out + _NOISE * noise).round().clip(0, 255).astype(np.uint8))

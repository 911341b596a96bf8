"""Images inside the page, as data URIs: strips and sheets."""

from __future__ import annotations

import base64
import io

import numpy as np

from upturn.store import png
from upturn.types import Array, Samples

_CRISP = 48  # pixels of a side up to which an image is stored exactly and displayed with visible pixels
_MOST = 128  # pixels of a side to which larger images shrink: more makes the file larger, not the tiles clearer
_QUALITY = 82  # of WebP; below about 80 block artifacts are visible in flat areas
_GAP = 1  # transparent pixels between crisp images
FRAME_COLUMNS = 10  # images in a row of an animation frame


def crisp(images: Array) -> bool:
    """Whether images (N, H, W, C) are so small that they are displayed with visible pixels."""
    return bool(max(images.shape[1:3]) <= _CRISP)


def strip(images: Array) -> str:
    """A data URI of images (N, H, W, C) uint8 side by side."""
    return sheet(images, len(images))


def sheet(images: Array, columns: int) -> str:
    """A data URI of images in rows of ``columns``, with transparent gaps."""
    small = _shrunk(_rgba(images))
    n, height, width, _ = small.shape
    rows = -(-n // columns)
    gap = _GAP if crisp(small) else 4 * _GAP
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = small[i]
    return _uri(canvas, crisp(small))


def grid_order(samples: Samples, columns: int) -> Array:
    """Rows of ``samples`` in the order of a sheet: prompts across, the candidates of a prompt below each other."""
    groups = np.unique(samples.group)
    order: list[int] = []
    for start in range(0, len(groups), columns):
        block = groups[start : start + columns]
        for candidate in np.unique(samples.candidate):
            rows = [np.flatnonzero((samples.group == g) & (samples.candidate == candidate)) for g in block]
            order += [int(row[0]) for row in rows if len(row)]
    return np.array(order, dtype=np.int64)


def _rgba(images: Array) -> Array:
    """(N, H, W, 4) from grey, grey with alpha, RGB or RGBA."""
    channels = images.shape[3]
    colour = np.repeat(images[..., :1], 3, axis=3) if channels <= 2 else images[..., :3]
    alpha = images[..., -1:] if channels in (2, 4) else np.full_like(images[..., :1], 255)
    return np.concatenate([colour, alpha], axis=3)


def _shrunk(images: Array) -> Array:
    if max(images.shape[1:3]) <= _MOST:
        return images
    from PIL import Image

    scale = _MOST / max(images.shape[1:3])
    size = (max(1, round(images.shape[2] * scale)), max(1, round(images.shape[1] * scale)))
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images])


def _uri(canvas: Array, exact: bool) -> str:
    if exact:
        opaque = canvas[..., 3] > 0
        red, green, blue = (canvas[..., channel][opaque] for channel in range(3))
        grey = bool((red == green).all() and (green == blue).all())
        body = png.encode((canvas[..., [0, 3]] if grey else canvas)[None])[0]
        return f"data:image/png;base64,{base64.b64encode(body).decode()}"
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"

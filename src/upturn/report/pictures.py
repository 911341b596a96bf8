"""Pictures inside the page: tiles, strips and sheets as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np

from upturn.store import png
from upturn.types import Array

_CRISP = 48  # pixels of a side up to which a picture is kept exactly, and shown with visible pixels
_MOST = 128  # pixels of a side of a larger one: more would make the file heavy and the tiles no clearer
_QUALITY = 82  # of WebP; below about 80 its blocks are seen in flat areas
_GAP = 1  # transparent pixels between crisp pictures


def crisp(images: Array) -> bool:
    """Whether pictures (N, H, W, C) are so small that their pixels are to be seen."""
    return bool(max(images.shape[1:3]) <= _CRISP)


def strip(images: Array) -> str:
    """A data URI of pictures (N, H, W, C) uint8 side by side."""
    return sheet(images, len(images))


def sheet(images: Array, columns: int) -> str:
    """A data URI of pictures in rows of ``columns``, with transparent gaps."""
    small = _shrunk(_rgba(images))
    n, height, width, _ = small.shape
    rows = -(-n // columns)
    gap = _GAP if crisp(small) else 4 * _GAP
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), dtype=np.uint8)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = small[i]
    return _uri(canvas, crisp(small))


def _rgba(images: Array) -> Array:
    """(N, H, W, 4) of grey, grey and alpha, RGB or RGBA."""
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
        seen = canvas[..., 3] > 0
        grey = bool((canvas[..., 0] == canvas[..., 1])[seen].all() and (canvas[..., 1] == canvas[..., 2])[seen].all())
        body = png.encode((canvas[..., [0, 3]] if grey else canvas)[None])[0]
        return f"data:image/png;base64,{base64.b64encode(body).decode()}"
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""Animated WebP images of one prompt's samples at each checkpoint."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from upturn.types import Array

_EXACT = 64  # pixels per side up to which compression is lossless and the image is enlarged
_SHOWN = 128  # pixels per side that small images are enlarged to
_FRAME, _LAST = 700, 2200  # milliseconds: long enough to look at eight frames, and to see where it ends
_QUALITY = 88  # of WebP, for larger images
_GAP = 2  # transparent pixels between candidates, before enlarging


def animated(frames: Sequence[Array]) -> bytes:
    """Frames of K images each, (K, H, W, C) uint8, side by side; equal frames give equal bytes.

    ValueError where there are no frames, or their shapes differ.
    """
    from PIL import Image

    if not frames or len({frame.shape for frame in frames}) != 1:
        raise ValueError("an animation needs frames of one shape")
    side = max(frames[0].shape[1:3])
    times = max(1, _SHOWN // side) if side <= _EXACT else 1
    images = [Image.fromarray(_beside(frame)) for frame in frames]
    large = [im.resize((im.width * times, im.height * times), Image.Resampling.NEAREST) for im in images]
    out = io.BytesIO()
    large[0].save(
        out, "WEBP", save_all=True, append_images=large[1:], loop=0, lossless=side <= _EXACT, quality=_QUALITY,
        method=4, duration=[*[_FRAME] * (len(large) - 1), _LAST], allow_mixed=False, minimize_size=False,
    )
    return out.getvalue()


def _beside(pictures: Array) -> Array:
    """(H, K * W + gaps, 4) RGBA."""
    count, height, width, channels = pictures.shape
    canvas = np.zeros((height, count * (width + _GAP) - _GAP, 4), dtype=np.uint8)
    for i, picture in enumerate(pictures):
        left = i * (width + _GAP)
        canvas[:, left : left + width, :3] = picture[..., :3] if channels >= 3 else picture[..., :1]
        canvas[:, left : left + width, 3] = picture[..., -1] if channels in (2, 4) else 255
    return canvas

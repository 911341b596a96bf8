"""Images for the page: points drawn, images enlarged."""

from __future__ import annotations

import io
import json

import numpy as np

_SIDE = 360  # pixels of a drawn plane
_MARGIN = 1.15
LARGE = 1024  # pixels of the longer side of an enlarged image
_CRISP = 48  # pixels of a side up to which an image's pixels are displayed as squares


def crisp(png: bytes) -> bool:
    """Whether a PNG file is so small that it is shown with its pixels visible."""
    width, height = size(png)
    return max(width, height) <= _CRISP


def size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file, from its head."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def enlarged(png: bytes) -> bytes:
    """The image with ``LARGE`` pixels on its longer side, by Lanczos: smoother, no new detail. A PNG file."""
    from PIL import Image

    image: Image.Image = Image.open(io.BytesIO(png))
    scale = LARGE / max(image.size)
    if scale > 1:
        sides = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        mode = "RGBA" if image.mode in ("LA", "RGBA") else "RGB"
        image = image.convert(mode).resize(sides, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def drawn(point: bytes, reach: float) -> bytes:
    """A point of the plane (JSON) on axes that go to ``reach``; a PNG file. Further dimensions are left out."""
    from PIL import Image, ImageDraw

    values = [*json.loads(point), 0.0, 0.0][:2]
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    pen = ImageDraw.Draw(image)
    middle, unit = _SIDE / 2, _SIDE / 2 / max(reach * _MARGIN, 1e-9)
    pen.line([(0, middle), (_SIDE, middle)], fill="#d6d2c8", width=2)
    pen.line([(middle, 0), (middle, _SIDE)], fill="#d6d2c8", width=2)
    x, y = (float(np.clip(value, -reach, reach)) if np.isfinite(value) else 0.0 for value in values)
    at = (middle + x * unit, middle - y * unit)
    pen.ellipse([at[0] - 9, at[1] - 9, at[0] + 9, at[1] + 9], fill="#1b6e8c")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()

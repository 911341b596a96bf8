"""Decodes image files and bytes into one array of equal squares, or images of several sizes."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from upturn.errors import UserError
from upturn.types import Array

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_NAMED = 3  # broken images that a message or note names
_THREADS = 8  # decoding releases the interpreter's lock


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images become arrays: fields shared by all sources of images.

    size            side in pixels: the middle square is cut out and resized (Lanczos)
    channels        3 colours, or 1 grey
    background      what shows through transparent parts: a name, or #rrggbb
    broken_at_most  share of images that may be unreadable; they are left out, named and counted. 0: refuse
    """

    size: int = 64
    channels: Literal[1, 3] = 3
    background: str = "white"
    broken_at_most: float = 0.0

    def check_image_options(self) -> None:
        """Raises ValueError for a field out of its range."""
        from PIL import ImageColor

        if self.size < 1:
            raise ValueError(f"size must be 1 or more pixels, not {self.size}")
        if not 0.0 <= self.broken_at_most < 1.0:
            raise ValueError(f"broken_at_most must lie in [0, 1), not {self.broken_at_most}")
        try:
            ImageColor.getrgb(self.background)
        except ValueError as error:
            raise ValueError(f"background must be a colour (white, #ffffff), not {self.background!r}") from error

    def decode(self, given: Sequence[Path | bytes], names: Sequence[str]) -> tuple[Array, Array, list[str]]:
        """Content of the M readable ones, (N,) bool which they are, and notes.

        Raises UserError naming the first unreadable images where they are more than ``broken_at_most``.
        """
        out = self.empty_array(len(given))
        sizes = np.zeros((len(given), 2))
        reasons: list[str] = [""] * len(given)

        def one(row: int) -> None:
            try:
                out[row], sizes[row] = self._read(given[row])
            except Exception as error:  # Pillow's readers raise dozens of types for malformed files
                reasons[row] = _why(error)

        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            list(pool.map(one, range(len(given)), chunksize=32))
        broken = [row for row, reason in enumerate(reasons) if reason]
        readable = np.array([not reason for reason in reasons], dtype=bool)
        if len(broken) > math.floor(self.broken_at_most * len(given)):
            others = f"; also {', '.join(names[row] for row in broken[1 : _NAMED + 1])}" if len(broken) > 1 else ""
            raise UserError(
                f"{len(broken)} of {len(given)} images cannot be read; this one: {reasons[broken[0]]}{others}",
                where=names[broken[0]], fix="Fix or remove them, or allow a share: 'broken_at_most: 0.01'.",
            )
        if not broken:
            return out, readable, self.notes_on(out, sizes)
        first = ", ".join(names[row] for row in broken[:_NAMED])
        note = f"{len(broken)} of {len(given)} images cannot be read, left out: {first}"
        return out[readable], readable, [note, *self.notes_on(out[readable], sizes[readable])]

    def empty_array(self, count: int) -> Array:
        """An array for ``count`` images: (N, size, size, channels) uint8."""
        return np.empty((count, self.size, self.size, self.channels), dtype=np.uint8)

    def shape_of(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) that an image of this width and height gets."""
        return self.size, self.size

    def notes_on(self, content: Array, given: Array) -> list[str]:
        """Notes on images whose original sizes were ``given`` in (N, 2) width and height."""
        return []

    def _read(self, given: Path | bytes) -> tuple[Array, tuple[int, int]]:
        """(height, width, channels) uint8, and the width and height of the whole image."""
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(given) if isinstance(given, bytes) else given) as opened:
            wanted = max(self.shape_of(*opened.size))
            opened.draft("RGB", (2 * wanted, 2 * wanted))  # JPEG only: decodes no more than twice what is needed
            image = _eight_bits(ImageOps.exif_transpose(opened))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                ground = Image.new("RGBA", image.size, self.background)
                image = Image.alpha_composite(ground, image)
            image = image.convert("RGB" if self.channels == 3 else "L")
        width, height = self.shape_of(*image.size)
        fitted = image
        if image.size != (width, height):
            fitted = ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)
        return np.asarray(fitted).reshape(height, width, self.channels), image.size


def _why(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "this is not an image"
    return str(error) or type(error).__name__


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits scaled to eight (Pillow's own conversion clips). Raises ValueError for pixels of other types."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}) are not read, only 8 and 16")
    return image

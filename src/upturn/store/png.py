"""Encodes and decodes many small images as PNG at once.

Written from the PNG specification (ISO/IEC 15948): 8 bits a channel, every row with filter 2 ("Up"), which numpy can
undo for all images of a batch at once. PNG files of other programs are decoded by PIL.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from upturn.types import Array, by_size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG colour type: grey, grey + alpha, RGB, RGB + alpha
_UP = 2
_LEVEL = 1  # zlib's fastest: small images hardly shrink further
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_IHDR_END = 29  # bytes of a file up to the end of its first chunk's data; the colour type is the fourth before it


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _head(height: int, width: int, channels: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header)


def encode(images: Array) -> list[bytes]:
    """(N, H, W, C) uint8 with C in 1..4, or objects of several sizes -> N PNG files. ValueError for any other array."""
    if images.dtype == object:
        found = [b""] * len(images)
        for rows, alike in by_size(images):
            for row, file in zip(rows, encode(alike), strict=True):
                found[row] = file
        return found
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in _COLOUR or 0 in images.shape[1:]:
        raise ValueError(f"images must be (N, H, W, 1..4) uint8, not {images.shape} {images.dtype}")
    n, height, width, channels = images.shape
    rows = np.empty((n, height, 1 + width * channels), dtype=np.uint8)
    rows[:, :, 0] = _UP
    flat = images.reshape(n, height, width * channels)
    rows[:, 0, 1:] = flat[:, 0]
    np.subtract(flat[:, 1:], flat[:, :-1], out=rows[:, 1:, 1:])  # modulo 256, as the filter is defined
    head, tail = _head(height, width, channels), _chunk(b"IEND", b"")
    raw, stride = memoryview(rows.tobytes()), height * rows.shape[2]
    return [
        head + _chunk(b"IDAT", zlib.compress(raw[start : start + stride], _LEVEL)) + tail
        for start in range(0, n * stride, stride)
    ]


def decode(given: Sequence[bytes], shape: tuple[int, int, int]) -> Array:
    """N PNG files of one shape (H, W, C) -> (N, H, W, C) uint8. ValueError where one is damaged or of another shape."""
    height, width, channels = shape
    head, stride = _head(height, width, channels), 1 + width * channels
    start = len(head) + 8  # past the length and the name of the IDAT chunk
    own = all(picture.startswith(head) and picture[start - 4 : start] == b"IDAT" for picture in given)
    if own:
        try:
            raw = b"".join([zlib.decompress(picture[start:-16]) for picture in given])  # 4 of CRC, 12 of IEND
        except zlib.error:
            own = False
    if own and len(raw) == len(given) * height * stride:
        rows = np.frombuffer(raw, dtype=np.uint8).reshape(len(given), height, stride)
        if (rows[:, :, 0] == _UP).all():
            flat = np.add.accumulate(rows[:, :, 1:], axis=1, dtype=np.uint8)
            return flat.reshape(len(given), *shape)
    return np.stack([_by_pil(picture, shape) for picture in given])


def decode_each(given: Sequence[bytes]) -> Array:
    """N PNG files of several sizes -> (N,) objects (H, W, C) uint8. ValueError where one is damaged or no PNG."""
    shapes = [_shape(picture) for picture in given]
    out = np.empty(len(given), dtype=object)
    for shape in dict.fromkeys(shapes):
        rows = [row for row, own in enumerate(shapes) if own == shape]
        for row, picture in zip(rows, decode([given[row] for row in rows], shape), strict=True):
            out[row] = picture
    return out


def _shape(picture: bytes) -> tuple[int, int, int]:
    """(H, W, C) from the file's first chunk."""
    channels = {colour: count for count, colour in _COLOUR.items()}
    if not picture.startswith(_SIGNATURE) or len(picture) < _IHDR_END or picture[_IHDR_END - 4] not in channels:
        raise ValueError("an image is damaged: it is not an 8-bit PNG file")
    width, height = struct.unpack(">II", picture[16:24])
    return height, width, channels[picture[_IHDR_END - 4]]


def _by_pil(picture: bytes, shape: tuple[int, int, int]) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(picture)).convert(_MODES[shape[2]])
        pixels = np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, shape[2])
    except (UnidentifiedImageError, OSError, SyntaxError, zlib.error) as error:
        raise ValueError(f"an image is damaged: {error}") from error
    if pixels.shape != shape:
        raise ValueError(f"an image is {pixels.shape}, the others {shape}")
    return pixels

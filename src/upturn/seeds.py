"""Keyed, counter-based random streams: every draw depends on its key alone, not on earlier draws.

A key has 63 bits. ``key`` derives one from words and numbers, ``fold`` derives many from one, and ``normal`` and
``uniform`` turn an array of keys into numbers. Row i depends on key i alone, so it is the same at any batch size, on
any machine.
The generator is Philox4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from upturn.types import Array

if TYPE_CHECKING:
    import torch

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers and Weyl constants of Philox4x32
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF
_ROUNDS = 10


def key(*parts: str | int) -> int:
    """A 63-bit key from words and numbers; ("a", 1) and ("a1",) differ."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def fold(base: int, index: Array | range | int) -> Array:
    """(N,) int64 keys, one for each number of ``index``, from one key: a 64-bit mix (the finalizer of SplitMix64)."""
    with np.errstate(over="ignore"):
        x = np.atleast_1d(np.asarray(index)).astype(np.uint64) + np.uint64(1)
        x = x * np.uint64(0x9E3779B97F4A7C15) + np.uint64(base)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Array = ((x ^ (x >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
    return mixed


def generator(base: int) -> np.random.Generator:
    """A NumPy generator for one key: for permutations, choices, bootstraps."""
    return np.random.Generator(np.random.Philox(key=base))


def seed_torch(base: int) -> None:
    """Set torch's own streams (initial weights, dropout) from a key.

    Not ``torch.manual_seed``: without a GPU that queues a call, with a stack trace, for every device type each time.
    """
    import torch

    torch.default_generator.manual_seed(base)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(base)


def philox(counter: tuple[Array, Array, Array, Array], keys: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
    """Ten rounds on four words of counter and two of key, each an array of uint64 below 2^32 (they broadcast)."""
    c0, c1, c2, c3 = counter
    k0, k1 = keys
    low, shift = np.uint64(_LOW), np.uint64(32)
    for _ in range(_ROUNDS):
        p0, p1 = c0 * np.uint64(_M0), c2 * np.uint64(_M1)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ k0, p1 & low, (p0 >> shift) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + np.uint64(_W0)) & low, (k1 + np.uint64(_W1)) & low
    return c0, c1, c2, c3


def _words(keys: Array, count: int, stream: int) -> Array:
    """(N, >= count) uint64 words below 2^32, four per counter: [all first words, all second words, …]."""
    blocks = -(-count // 4)
    k = np.asarray(keys).astype(np.uint64)[:, None]
    counter = np.arange(blocks, dtype=np.uint64)[None, :]
    zero = np.uint64(0)
    words = philox(
        (counter, np.full_like(counter, stream), np.full_like(counter, zero), np.full_like(counter, zero)),
        (k & np.uint64(_LOW), k >> np.uint64(32)),
    )
    return np.concatenate(words, axis=1)


def uniform(keys: Array, shape: tuple[int, ...] = (), *, stream: int = 0) -> torch.Tensor:
    """(N, *shape) float32, uniform in (0, 1); ``stream`` separates draws of one key (steps of a sampler)."""
    import torch

    count = math.prod(shape)
    words = _words(keys, count, stream)[:, :count]
    # 24 bits and half a step: float32 holds them exactly, and 0 and 1 cannot occur
    values = ((words >> np.uint64(8)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-24)
    return torch.from_numpy(values.reshape(len(words), *shape))


def normal(keys: Array, shape: tuple[int, ...] = (), *, stream: int = 0) -> torch.Tensor:
    """(N, *shape) float32 standard normal (Box–Muller on Philox words)."""
    import torch

    count = math.prod(shape)
    half = -(-count // 2)
    words = _words(keys, 2 * half, stream)
    scaled = torch.from_numpy(((words >> np.uint64(8)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-24))
    width = scaled.shape[1] // 2
    radius = scaled[:, :width].log_().mul_(-2.0).sqrt_()
    angle = scaled[:, width:].mul_(2.0 * math.pi)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :count].reshape(len(words), *shape)


_BLOCK = 64  # rows that one generator of a table fills; a part of a batch draws only the blocks it overlaps


def _table(base: int, start: int, stop: int, shape: tuple[int, ...], stream: int, kind: str) -> torch.Tensor:
    import torch

    first, last = start // _BLOCK, -(-stop // _BLOCK)
    parts = []
    for block in range(first, last):
        source = np.random.Generator(np.random.Philox(key=base, counter=[0, 0, stream, block]))
        draw = source.standard_normal if kind == "normal" else source.random
        parts.append(draw((_BLOCK, *shape), dtype=np.float32))
    rows = np.concatenate(parts) if parts else np.zeros((0, *shape), dtype=np.float32)
    return torch.from_numpy(rows[start - first * _BLOCK : stop - first * _BLOCK])


def table_normal(base: int, start: int, stop: int, shape: tuple[int, ...] = (), *, stream: int = 0) -> torch.Tensor:
    """Rows ``start`` to ``stop`` of an unbounded standard normal table (…, *shape) float32 that one key determines.

    Ten times cheaper per number than :func:`normal`, for training: the row is a position in the global batch, so
    micro-batches and processes that split the batch draw the same noise.
    """
    return _table(base, start, stop, shape, stream, "normal")


def table_uniform(base: int, start: int, stop: int, shape: tuple[int, ...] = (), *, stream: int = 0) -> torch.Tensor:
    """Like :func:`table_normal`, with numbers uniform in [0, 1)."""
    return _table(base, start, stop, shape, stream, "uniform")

"""Content as tensors for the classifier, and the network that fits it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from upturn.errors import UserError
from upturn.models._heads.networks import BUCKETS, HeadNetwork, Pieces, Standardise, convolutions, perceptron, spread
from upturn.types import Array, Column, Kind, Ragged, Samples

_LONGEST_PIECE = 4  # bytes: fastText's character pieces are 3 to 6, short ones matter where texts are formulas
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's odd multiplier


def check(sizes: Mapping[str, int], shares: Mapping[str, float]) -> None:
    """ValueError where a size is below 1, or a share not in [0, 1)."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")
    for name, share in shares.items():
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be at least 0 and below 1, not {share}")


def columns(samples: Samples, shape: Sequence[int]) -> Tensor | Ragged:
    """Images (N, C, H, W) uint8, points (N, d) float32, texts the ragged ids of their pieces.

    ``shape`` is the content's shape a row when the model was built; UserError where it is another.
    """
    if samples.kind == "text":
        return pieces([str(text) for text in samples.content])
    found = samples.content.shape[1:]
    if tuple(found) != tuple(shape):
        raise UserError(f"the classifier was built for content of shape {tuple(shape)}, not {tuple(found)}",
                        where="model 'classifier'", fix="Train it on data of this shape.")
    if samples.kind == "image":
        return torch.from_numpy(samples.content.transpose(0, 3, 1, 2).copy(order="C"))
    return torch.from_numpy(samples.content.astype(np.float32))


def pieces(texts: Sequence[str]) -> Ragged:
    """All runs of 1 to 4 bytes of each text, hashed to 1 … ``BUCKETS`` - 1; an empty text has the one id 1."""
    raw = [b"\x00" + text.encode() for text in texts]  # the zero byte marks the start, and keeps no text empty
    ends = np.cumsum([len(row) for row in raw])
    flat = np.frombuffer(b"".join(raw), dtype=np.uint8).astype(np.uint64)
    owner = np.repeat(np.arange(len(raw)), [len(row) for row in raw])
    left = (ends[owner] - np.arange(len(flat))) if len(raw) else np.zeros(0, dtype=np.int64)  # bytes to the text's end
    hashed = np.zeros(len(flat), dtype=np.uint64)
    found, whose = [], []
    with np.errstate(over="ignore"):
        for length in range(1, _LONGEST_PIECE + 1):
            hashed = hashed[: len(flat) - length + 1]
            hashed = (hashed ^ (flat[length - 1 :] + np.uint64(1))) * _PRIME
            inside = left[: len(hashed)] >= length
            mixed = (hashed[inside] ^ (hashed[inside] >> np.uint64(32))) * _PRIME >> np.uint64(40)
            found.append(mixed % np.uint64(BUCKETS - 1) + np.uint64(1))
            whose.append(owner[: len(hashed)][inside])
    ids, rows = np.concatenate(found).astype(np.int64), np.concatenate(whose)
    counts = np.bincount(rows, minlength=len(raw))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return Ragged(torch.from_numpy(ids[np.argsort(rows, kind="stable")]), torch.from_numpy(offsets))


def network(settings: dict[str, Any], column: Column | None = None) -> HeadNetwork:
    """A network for a content, from ``settings`` (JSON-ready, saved for ``load``); its scale from ``column``."""
    kind: Kind = settings["kind"]
    hidden, depth = settings["hidden"], settings["depth"]
    dropout, classes = settings["dropout"], settings["classes"]
    if kind == "text":
        body = nn.Sequential(Pieces(hidden), *perceptron(hidden, hidden, depth))
        return HeadNetwork(body, hidden, classes, dropout)
    channels = settings["shape"][-1]
    image = kind == "image"
    broadcast = (1, 1, 1) if image else (channels,)
    mean, std = torch.zeros(broadcast), torch.ones(broadcast)
    if isinstance(column, Tensor):
        mean, std = spread(column, (0, 1, 2, 3) if image else (0,))
    if not image:
        return HeadNetwork(nn.Sequential(Standardise(mean, std), *perceptron(channels, hidden, depth)), hidden, classes,
                       dropout)
    height, width, _ = settings["shape"]
    stack = convolutions((channels, height, width), settings["channels"], depth, hidden)
    return HeadNetwork(nn.Sequential(Standardise(mean, std), *stack), hidden, classes, dropout)


def multiplications(module: HeadNetwork, column: Column) -> float:
    """Of one forward pass over a whole column: measured on one row, of texts on one of the mean length."""
    from torch.utils.flop_counter import FlopCounterMode

    rows = len(column)
    if rows == 0:
        return 0.0
    device = next(module.parameters()).device
    if isinstance(column, Ragged):
        one = torch.ones((1, math.ceil(float(column.lengths.double().mean()))), dtype=torch.int64)
    else:
        one = column[torch.arange(1)]
    training = module.training
    module.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(one.to(device))
    module.train(training)
    return float(counter.get_total_flops()) * rows


def label_array(samples: Samples) -> Array:
    """(N,) int64, -1 where unknown; UserError where none is known or one is below 0."""
    labels = samples.labels
    if len(labels) and not (labels >= 0).any():
        raise UserError(
            f"not one of {len(labels)} samples has a label, so there is nothing to classify",
            where="model 'classifier'", fix="Use a source whose prompts carry a label (class folders, a label column).",
        )
    return labels

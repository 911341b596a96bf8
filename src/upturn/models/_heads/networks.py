"""The bodies of the classifier, one for each kind of content: x -> (logits (N, C), features (N, hidden)).

None has a batch statistic: a row's score does not depend on the rows beside it. The normalisation of the input is taken
from the training data when the model is built, and kept in buffers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 4  # pixels: images are halved until a side is no longer than this
WIDEST = 256  # channels: from there on halving no longer doubles them
BUCKETS = 1 << 13  # rows of the table of text pieces; piece 0 is padding


class HeadNetwork(nn.Module):
    """A body, then dropout, then one linear layer."""

    def __init__(self, body: nn.Module, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.body, self.dropout, self.head = body, nn.Dropout(dropout), nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(self.dropout(features)), features


class Standardise(nn.Module):
    """(x - mean) / std by dimension (points) or over all pixels (images)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std


def perceptron(inputs: int, hidden: int, depth: int) -> nn.Sequential:
    """``depth`` hidden layers."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else hidden, hidden), nn.SiLU()]
    return nn.Sequential(*layers)


def convolutions(shape: tuple[int, int, int], channels: int, depth: int, hidden: int) -> nn.Sequential:
    """For (N, C, H, W): ``depth`` 3×3 convolutions a resolution, halving and doubling the channels, then one layer."""
    inputs, height, width = shape
    layers: list[nn.Module] = []
    while True:
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.SiLU()]
            inputs = channels
        if max(height, width) <= SMALLEST:
            break
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
        height, width, channels = -(-height // 2), -(-width // 2), min(2 * channels, WIDEST)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * height * width, hidden), nn.SiLU())


class Pieces(nn.Module):
    """For (N, L) ids of hashed pieces of text, 0 where padded: their mean vector (fastText, Joulin et al. 2016)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.table = nn.Embedding(BUCKETS, hidden, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        counted = (x > 0).sum(dim=1, keepdim=True).clamp(min=1)
        summed: Tensor = self.table(x).sum(dim=1)
        return summed / counted


def spread(values: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over ``dims``, kept broadcastable; 1 where nothing varies."""
    mean, std = values.float().mean(dims, keepdim=True)[0], values.float().std(dims, keepdim=True, correction=0)[0]
    return mean, torch.where(std > 0, std, 1.0)

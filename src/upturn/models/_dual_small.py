"""A small dual encoder from nothing: convolutions for pictures, a bag of hashed pieces of words for texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from upturn.models._classifier_input import pieces
from upturn.models._classifier_networks import BUCKETS, Standardise, convolutions

CHANCES = 8  # numbers of a draw that move one picture
_START, _MOST = math.log(1 / 0.07), math.log(100.0)  # of the log scale: Radford et al. 2021, section 2.5


@dataclass(frozen=True)
class Small:
    """``config:`` of dual_encoder: its sizes, and how far pictures are moved in training.

    width     of the space that both sides share
    channels  of the first convolution; doubled at each halving
    depth     convolutions a resolution
    hidden    of each side's layer before the shared space
    shift     standard deviation of the shift in training, a share of the side;  0: pictures stay as they are
    zoom      the same of the log of the zoom
    colour    the same of the log of each channel's gain
    flip      share of pictures that are mirrored
    """

    width: int = 128
    channels: int = 24  # emoji at 32 pixels, 20 epochs: recall@10 41% with 16 in 56 s of one core, 45% with 32 in 110 s
    depth: int = 1
    hidden: int = 256
    shift: float = 0.06
    zoom: float = 0.1
    colour: float = 0.1
    flip: float = 0.5

    def __post_init__(self) -> None:
        for name in ("width", "channels", "depth", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.{name} must be at least 1, not {getattr(self, name)}")
        if min(self.shift, self.zoom, self.colour) < 0 or not 0 <= self.flip <= 1:
            raise ValueError("config: shift, zoom and colour must be at least 0, flip lies between 0 and 1")


class Towers(nn.Module):
    """(N, C, H, W) uint8 and (N, L) ids of pieces -> unit vectors (N, width) each, and the scale of their cosines."""

    def __init__(self, small: Small, shape: Sequence[int]) -> None:
        super().__init__()
        height, width, channels = shape
        self.small = small
        self.eye = nn.Sequential(
            Standardise(torch.full((channels, 1, 1), 127.5), torch.full((channels, 1, 1), 127.5)),
            *convolutions((channels, height, width), small.channels, small.depth, small.hidden),
            nn.Linear(small.hidden, small.width),
        )
        bag = nn.EmbeddingBag(BUCKETS, small.hidden, mode="mean", padding_idx=0)
        self.reader = nn.Sequential(bag, nn.SiLU(), nn.Linear(small.hidden, small.width))
        self.log_scale = nn.Parameter(torch.tensor(_START))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.clamp(max=_MOST).exp()

    def picture(self, pixels: Tensor, chance: Tensor | None = None) -> Tensor:
        seen = pixels.float() if chance is None else moved(pixels.float(), chance, self.small)
        return nn.functional.normalize(self.eye(seen).float(), dim=1)

    def text(self, ids: Tensor) -> Tensor:
        longest = int((ids > 0).sum(dim=1).max()) if len(ids) else 1
        return nn.functional.normalize(self.reader(ids[:, :longest]).float(), dim=1)

    def forward(self, pixels: Tensor, ids: Tensor, chance: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.picture(pixels, chance), self.text(ids), self.scale


def read(texts: Sequence[str]) -> Tensor:
    """(N, L) int32 ids of all runs of 1 to 4 bytes of each text, without capitals; 0 behind them.

    Not ragged: batches of texts of like length would contrast like with like.
    """
    found = pieces([" ".join(text.lower().split()) for text in texts])
    return found.pad(torch.arange(len(texts))).to(torch.int32)


def moved(pixels: Tensor, chance: Tensor, small: Small) -> Tensor:
    """Pictures (N, C, H, W) shifted, zoomed, mirrored and tinted by ``chance`` (N, CHANCES) standard normal numbers.

    What comes in from outside repeats the edge.
    """
    mirrored = chance[:, 7] < math.sqrt(2) * torch.special.erfinv(torch.tensor(2 * small.flip - 1)).item()
    zoom = (small.zoom * chance[:, 2]).exp()
    grid: Any = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    grid[:, 0, 0] = torch.where(mirrored, -zoom, zoom)
    grid[:, 1, 1] = zoom
    grid[:, :, 2] = 2 * small.shift * chance[:, :2]
    places = nn.functional.affine_grid(grid, list(pixels.shape), align_corners=False)
    out = nn.functional.grid_sample(pixels, places, padding_mode="border", align_corners=False)
    gain = (small.colour * chance[:, 3:6]).exp()[:, : pixels.shape[1]]
    shade = small.colour * 127.5 * chance[:, 6]
    return (out * gain[:, :, None, None] + shade[:, None, None, None]).clamp(0, 255)

"""A small dual encoder trained from scratch: convolutions for images, a bag of hashed word pieces for texts."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from upturn.models._heads.networks import BUCKETS, Standardise, convolutions

_WORDS = 32  # words of a text that a draw can leave out one by one; the 33rd goes with the first
CHANCES = 9 + _WORDS  # of a draw: 8 for the image, one for the number of words, the others for which
_PIECES = range(3, 6)  # characters: shorter ones distinguish little, these carry inflections
_SPREAD = 0.1  # of a piece's first vector: rare ones are noise beside what was learned. Search for words of emoji finds
# them in 27% of the first five (20 epochs), in 22% at 0.02, in 20% at torch's 1; without leaving words out in 17%
_START, _MOST = math.log(1 / 0.07), math.log(100.0)  # of the log scale: Radford et al. 2021, section 2.5


@dataclass(frozen=True)
class SmallDualEncoder:
    """``config:`` of dual_encoder: its sizes, and how strongly images are augmented in training.

    width     of the space that both sides share
    channels  of the first convolution; doubled at each halving
    depth     convolutions a resolution
    hidden    of each side's layer before the shared space
    shift     standard deviation of the shift in training, a share of the side;  0: images stay as they are
    zoom      the same of the log of the zoom
    colour    the same of the log of each channel's gain
    flip      share of images that are mirrored
    words     least share of a text's words that are read in training; each time a share from there to 1, so that single
              words are learned, too. 1: all are
    """

    width: int = 128
    channels: int = 24  # emoji at 32 pixels, 30 epochs: recall@10 41% (chance 5%) in 135 s of a core; 16: 40% in 79 s
    depth: int = 1
    hidden: int = 256
    shift: float = 0.06
    zoom: float = 0.1
    colour: float = 0.1
    flip: float = 0.5
    words: float = 0.15

    def __post_init__(self) -> None:
        for name in ("width", "channels", "depth", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"config.{name} must be at least 1, not {getattr(self, name)}")
        if min(self.shift, self.zoom, self.colour) < 0 or not min(self.flip, self.words) >= 0:
            raise ValueError("config: shift, zoom, colour, flip and words must be at least 0")
        if max(self.flip, self.words) > 1:
            raise ValueError("config: flip and words are shares, at most 1")


class Towers(nn.Module):
    """(N, C, H, W) uint8 and (N, L, 2) pieces -> unit vectors (N, width) each, and the scale of their cosines."""

    def __init__(self, small: SmallDualEncoder, shape: Sequence[int]) -> None:
        super().__init__()
        height, width, channels = shape
        self.small = small
        self.eye = nn.Sequential(
            Standardise(torch.full((channels, 1, 1), 127.5), torch.full((channels, 1, 1), 127.5)),
            *convolutions((channels, height, width), small.channels, small.depth, small.hidden),
            nn.Linear(small.hidden, small.width),
        )
        bag = nn.EmbeddingBag(BUCKETS, small.hidden, mode="mean", padding_idx=0)
        nn.init.normal_(bag.weight, std=_SPREAD)
        with torch.no_grad():
            bag.weight[0] = 0
        self.reader = nn.Sequential(bag, nn.SiLU(), nn.Linear(small.hidden, small.width))
        self.log_scale = nn.Parameter(torch.tensor(_START))

    @property
    def scale(self) -> Tensor:
        return self.log_scale.clamp(max=_MOST).exp()

    def image(self, pixels: Tensor, chance: Tensor | None = None) -> Tensor:
        seen = pixels.float() if chance is None else augmented(pixels.float(), chance, self.small)
        return nn.functional.normalize(self.eye(seen).float(), dim=1)

    def text(self, pieces: Tensor, chance: Tensor | None = None) -> Tensor:
        """Of (N, L, 2): the ids of pieces and the numbers of their words."""
        ids, words = pieces.unbind(dim=2)
        if chance is not None and self.small.words < 1:
            ids = torch.where(chosen(ids, words.long(), chance, self.small.words), ids, 0)
        longest = int((words.amax(dim=0) >= 0).sum()) if len(ids) else 1
        return nn.functional.normalize(self.reader(ids[:, :longest]).float(), dim=1)

    def forward(self, pixels: Tensor, pieces: Tensor, chance: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.image(pixels, chance), self.text(pieces, chance), self.scale


@lru_cache(maxsize=100_000)
def _of_word(word: str) -> tuple[int, ...]:
    """1 … BUCKETS - 1 of a word and of its runs of 3 to 5 characters, its ends marked (Bojanowski et al. 2017)."""
    marked = f"<{word}>"
    runs = {marked, *(marked[i : i + n] for n in _PIECES for i in range(len(marked) - n + 1))}
    return tuple(zlib.crc32(run.encode()) % (BUCKETS - 1) + 1 for run in sorted(runs))


def read(texts: Sequence[str]) -> Tensor:
    """(N, L, 2) int32: ids of the pieces of each text, and the number of each one's word; 0 and -1 behind them.

    Lowercased. Not ragged: batches of texts of equal length would contrast similar texts.
    """
    rows = []
    for text in texts:
        own = [_of_word(word) for word in re.findall(r"\w+", text.lower())] or [(1,)]
        rows.append(torch.tensor([(piece, at) for at, word in enumerate(own) for piece in word], dtype=torch.int32))
    out = torch.zeros(len(rows), max(map(len, rows), default=1), 2, dtype=torch.int32)
    out[..., 1] = -1
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out


def chosen(ids: Tensor, words: Tensor, chance: Tensor, least: float) -> Tensor:
    """(N, L) bool: pieces of the words that are read, at least one word of each text."""
    shares = torch.special.ndtr(chance[:, 8:])
    share, drawn = least + (1 - least) * shares[:, :1], shares[:, 1:]
    count = words.amax(dim=1, keepdim=True).clamp(max=_WORDS - 1)
    drawn = torch.where(torch.arange(_WORDS, device=ids.device) <= count, drawn, 2.0)
    kept = (drawn <= share) | (drawn == drawn.amin(dim=1, keepdim=True))
    found: Tensor = kept.gather(1, words.clamp(min=0) % _WORDS)
    return found


def augmented(pixels: Tensor, chance: Tensor, small: SmallDualEncoder) -> Tensor:
    """Images (N, C, H, W) shifted, zoomed, mirrored and tinted by the first 8 of ``chance`` (N, CHANCES).

    These are standard normal. Pixels from outside repeat the edge.
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

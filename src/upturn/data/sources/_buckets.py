"""Aspect-ratio buckets: the sizes of about one area that images of any shape are cut to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from upturn.types import Array


@dataclass(frozen=True)
class Buckets:
    """An image goes to the bucket of nearest aspect ratio, is resized to cover it, and cut in the middle.

    Buckets are made as NovelAI 2022 ("Improvements on Stable Diffusion", Aspect ratio bucketing) and the programs after
    it do: for each width that is a multiple of ``step``, the greatest height that is one and keeps the area within that
    of the square; and the same lying. Nearest is by the ratio's logarithm, so that 1:2 and 2:1 are treated equally
    (there by the ratio itself).

    step     pixels that every side is a multiple of: 64 is what Stable Diffusion's were trained with
    at_most  the greatest ratio of the longer side to the shorter: images beyond it are cut to it
    """

    step: int = 64
    at_most: float = 2.0

    def __post_init__(self) -> None:
        if self.step < 1 or not math.isfinite(self.at_most) or self.at_most < 1:
            raise ValueError("needs step >= 1, and a finite at_most >= 1")

    @lru_cache(maxsize=4)  # noqa: B019 - one for each source
    def sizes(self, side: int) -> tuple[tuple[int, int], ...]:
        """(width, height) of each, of about the area of a square of ``side`` pixels, from the highest to the widest.

        Raises ValueError where the square itself is no bucket.
        """
        if side % self.step:
            raise ValueError(f"size must be a multiple of the buckets' step: {side} is none of {self.step}")
        found = {(side, side)}
        for width in range(self.step, side + 1, self.step):
            height = side * side // width // self.step * self.step
            if height <= width * self.at_most:
                found |= {(width, height), (height, width)}
        return tuple(sorted(found, key=lambda size: (size[0] / size[1], size)))

    def nearest(self, width: int, height: int, side: int) -> tuple[int, int]:
        """(width, height) of an image's bucket; of two that are equally near, the higher one."""
        ratio = math.log(width / height)
        return min(self.sizes(side), key=lambda size: abs(math.log(size[0] / size[1]) - ratio))


def lost(given: Array, made: Array) -> Array:
    """(N,) the share of each image's area that is cut away; (N, 2) width and height as given and as made."""
    scale = (made / given).max(axis=1)
    return np.asarray(1 - made.prod(axis=1) / (given.prod(axis=1) * scale**2))


def describe(content: Sequence[Array] | Array, given: Array) -> str:
    """Images by bucket, and what was cut away of those that were ``given`` (N, 2) in width and height."""
    made = np.array([row.shape[1::-1] for row in content], dtype=np.float64).reshape(-1, 2)
    counts = Counter(f"{row.shape[1]}x{row.shape[0]}" for row in content)
    each = ", ".join(f"{count:,} of {name}" for name, count in counts.most_common())
    share = float(lost(given, made).mean()) if len(made) else 0.0
    return f"{len(counts)} buckets (width x height): {each}; {share:.1%} of an average image is cut away"

"""A random subset of ``count`` samples; a smaller subset is part of a larger one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from upturn.curators._helpers import selection
from upturn.protocols import Curator, Tools
from upturn.types import Array, Samples, Selection, objects


@dataclass
class Subset(Curator):
    """A random subset of ``count`` samples; a smaller subset is part of a larger one.

    Which ones follows from content and ``draw`` alone: not from the recipe's seed, nor from captions, so that models
    which differ in those are trained on the same images. In ``filter:`` it limits how much real data is used.
    """

    count: int
    draw: int = 0  # another number, another subset

    selects = "random"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}: at least one sample has to stay")

    def expected_kept(self, samples: float, prompts: float) -> float:
        return min(samples, self.count)

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Keeps all where there are no more than ``count``."""
        order = np.argsort(_lots(samples, self.draw), kind="stable")
        kept = np.zeros(len(samples), dtype=bool)
        kept[order[: self.count]] = True
        reasons = objects(["" if keep else f"subset: beyond {self.count:,} chosen by chance" for keep in kept])
        return selection("subset", kept, reasons)


def _lots(samples: Samples, draw: int) -> Array:
    """(N,) uint64, a lot for each row, from its content."""
    salt = str(draw).encode()
    lots = [
        int.from_bytes(hashlib.blake2b(_raw(row), digest_size=8, salt=salt[:16]).digest(), "little")
        for row in samples.content
    ]
    return np.array(lots, dtype=np.uint64)


def _raw(content: object) -> bytes:
    return np.ascontiguousarray(content).tobytes() if isinstance(content, np.ndarray) else str(content).encode()

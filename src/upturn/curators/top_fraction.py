"""Keeps the best share of a round, or of each prompt's candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from upturn.curators._helpers import UNSCORED, ranks_within, row_uniform, scored, selection, sizes_within
from upturn.protocols import Curator, Tools
from upturn.types import Array, Samples, Selection, objects


@dataclass
class TopFraction(Curator):
    """Keeps the ``fraction`` of scored rows with the highest reward, of the round or of each prompt; ties by key.

    Over the round this is the step of ReST (Gulcehre et al. 2023) and of the cross-entropy method with its elite
    fraction (Rubinstein 1999). The count is rounded up, so at least one row of each part stays.
    """

    fraction: float
    within: Literal["round", "prompt"] = "round"  # easy prompts may fill the whole round; "prompt" keeps each in

    selects = "reward"
    several_sizes = True
    law = "top"

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction must be above 0 and at most 1, not {self.fraction}")

    def expected_kept(self, samples: float, prompts: float) -> float:
        return self.fraction * samples

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Rewards (N,), NaN where unscored: dropped as such, and not counted in the fraction."""
        known = np.flatnonzero(scored(samples, rewards, "top_fraction"))
        part = samples.group[known] if self.within == "prompt" else np.zeros(len(known), dtype=np.int64)
        ranks, sizes = ranks_within(part, rewards[known], row_uniform(samples, key)[known]), sizes_within(part)
        # 0.07 * 100 is 7.000000000000001 in floating point, and must be 7
        allowed = np.array([math.ceil(self.fraction * size - _ROUNDING) for size in range(sizes.max(initial=0) + 1)])
        kept = np.zeros(len(samples), dtype=bool)
        kept[known[ranks <= allowed[sizes]]] = True
        reasons = objects([UNSCORED] * len(samples))
        reasons[known] = [f"top_fraction: rank {rank} of {size} in the {self.within}, top {self.fraction:g} kept"
                          for rank, size in zip(ranks.tolist(), sizes.tolist(), strict=True)]
        return selection("top_fraction", kept, reasons)


_ROUNDING = 1e-9  # rows

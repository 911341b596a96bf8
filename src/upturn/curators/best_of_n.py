"""Keeps the best candidates of each prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.curators._helpers import UNSCORED, ranks_within, row_uniform, scored, selection, sizes_within
from upturn.protocols import VERIFIED, Curator, Tools
from upturn.types import Array, Samples, Selection, objects


@dataclass
class BestOfN(Curator):
    """The ``keep`` candidates of each prompt with the highest reward; ties are drawn, by key.

    Stiennon et al., NeurIPS 2020, "Learning to summarize from human feedback", section 4.3 (best-of-N sampling).
    Unscored candidates are dropped as such and do not count. Where a verifier scores (exact_match, final_answer, …) no
    wrong candidate is kept: of a prompt without a right one, none (rejection sampling; Yuan et al. 2023, "Scaling
    Relationship on Learning Mathematical Reasoning with Large Language Models", section 3.3). ``wrong: true`` keeps
    the best of each prompt, wrong or not.
    """

    keep: int = 1  # best-of-N keeps one
    wrong: bool = False  # the paper on rejection sampling above trains on right answers alone

    selects = "reward"
    among_candidates = True
    several_sizes = True
    law = "best"

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep must be at least 1, not {self.keep}")

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Rewards (N,), NaN where unscored."""
        there = scored(samples, rewards, "best_of_n")
        wrong = np.zeros(len(samples), dtype=bool)
        if not self.wrong and VERIFIED in samples.fields:
            wrong = there & (np.asarray(samples.fields[VERIFIED], dtype=np.float64) == 0)
        known = np.flatnonzero(there & ~wrong)
        part = samples.group[known]
        ranks, sizes = ranks_within(part, rewards[known], row_uniform(samples, key)[known]), sizes_within(part)
        kept = np.zeros(len(samples), dtype=bool)
        kept[known[ranks <= self.keep]] = True
        width = int(sizes.max(initial=0)) + 1
        words = objects([f"best_of_n: rank {rank} of {size}, {self.keep} kept"
                         for rank in range(width) for size in range(width)])
        reasons = objects([UNSCORED] * len(samples))
        reasons[known] = words[ranks * width + sizes]
        reasons[wrong] = "best_of_n: wrong"
        return selection("best_of_n", kept, reasons)

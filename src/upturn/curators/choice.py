"""Keeps one of the K candidates of a prompt, drawn with probability softmax(reward)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.curators._helpers import UNSCORED, ranks_within, row_uniform, scored, selection, sizes_within
from upturn.protocols import Curator, Tools
from upturn.types import Array, Samples, Selection, objects


@dataclass
class Choice(Curator):
    """One candidate of each prompt, with probability softmax(reward / temperature): a Bradley–Terry annotator.

    Ferbach et al., NeurIPS 2024, "Self-consuming generative models with curated data provably optimize human
    preferences", section 2: a sample of p_t is kept with density p_t * H,
    ``H(x) = E[K e^{r(x)} / (e^{r(x)} + sum_{i<K} e^{r(x_i)})]`` over the K - 1 others. Drawn as the argmax of reward /
    temperature plus Gumbel noise, keyed by group and candidate. Unscored candidates are dropped as such and the choice
    is among the others; a candidate that is alone is kept.
    """

    temperature: float = 1.0  # the paper's softmax has none

    selects = "reward"
    among_candidates = True
    several_sizes = True
    law = "odds"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}; 'best_of_n' always takes the best")

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Rewards (N,), NaN where unscored; the reason of a dropped row names the number of candidates."""
        known = np.flatnonzero(scored(samples, rewards, "choice"))
        gumbel = -np.log(-np.log(row_uniform(samples, key)[known]))
        part = samples.group[known]
        # the second key of the order matters only where all candidates of a group have infinite rewards
        first = ranks_within(part, rewards[known] / self.temperature + gumbel, -gumbel) == 1
        kept = np.zeros(len(samples), dtype=bool)
        kept[known[first]] = True
        reasons = objects([UNSCORED] * len(samples))
        sizes = sizes_within(part)
        words = objects([f"choice: another of {k} candidates was chosen" for k in range(sizes.max(initial=0) + 1)])
        reasons[known] = words[sizes]
        return selection("choice", kept, reasons)

"""Keeps every sample whose reward is within limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.curators._helpers import UNSCORED, number, scored, selection
from upturn.protocols import Curator, Tools
from upturn.types import Array, Samples, Selection, objects

_ASSUMED = 0.5  # share that it is expected to keep: it depends on rewards that are not known yet


@dataclass
class Threshold(Curator):
    """Keeps rewards of at least ``at_least`` and at most ``at_most``; both limits are kept themselves.

    With a verifier's 1 and 0 and ``at_least: 1`` this is rejection sampling (STaR, Zelikman et al., NeurIPS 2022;
    RFT, Yuan et al. 2023). Unscored rows are dropped as such: neither right nor wrong.
    """

    at_least: float | None = None
    at_most: float | None = None

    selects = "reward"
    several_sizes = True
    law = "top"
    kept_is_assumed = True

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a threshold needs 'at_least', 'at_most' or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"no reward is at least {self.at_least} and at most {self.at_most}")

    def expected_kept(self, samples: float, prompts: float) -> float:
        return _ASSUMED * samples

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Rewards (N,), NaN where unscored; the reason of a dropped row names its reward and the limit it missed."""
        known = scored(samples, rewards, "threshold")
        kept = known.copy()
        reasons = objects([UNSCORED] * len(samples))
        if self.at_least is not None:
            kept &= self._drop(reasons, rewards, known & (rewards < self.at_least), "below", self.at_least)
        if self.at_most is not None:
            kept &= self._drop(reasons, rewards, known & (rewards > self.at_most), "above", self.at_most)
        return selection("threshold", kept, reasons)

    @staticmethod
    def _drop(reasons: Array, rewards: Array, missed: Array, side: str, limit: float) -> Array:
        """Writes the reasons of the ``missed`` rows; (N,) bool of the others. One string for each distinct reward."""
        values, inverse = np.unique(rewards[missed], return_inverse=True)
        words = objects([f"threshold: reward {number(value, limit)} {side} {limit:g}" for value in values])
        reasons[missed] = words[inverse]
        return ~missed

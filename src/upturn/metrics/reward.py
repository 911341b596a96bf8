"""Mean reward of the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class Reward(Metric):
    """Mean reward by the round's scorers, with a value a sample (NaN where it is unscored, which the note counts)."""

    title: ClassVar[str] = "Reward"
    meaning: ClassVar[str] = "Mean score by the scorers that the rounds are curated with."
    averages_reward: ClassVar[bool] = True
    better: ClassVar[Better] = "higher"
    several_sizes: ClassVar[bool] = True

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        values = np.asarray(evidence.rewards, dtype=np.float64)
        known = int((~np.isnan(values)).sum())
        if not known:
            raise UndefinedMetric("no sample was scored")
        low, high = bootstrap_mean(values, metric_key(evidence, "reward"), clusters=evidence.samples.group)
        note = "" if known == len(values) else f"{len(values) - known} of {len(values)} samples were not scored"
        return Measurement(float(np.nanmean(values)), low, high, known, values, note)

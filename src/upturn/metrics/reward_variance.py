"""Variance of e^reward, which bounds the growth of reward by selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note, number
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class RewardVariance(Metric):
    """Var[e^r] over the samples, and E[e^r] in the details.

    The growth bound for curated retraining is E_{t+1}[e^r] >= E_t[e^r] + ((K-1)/K) Var_t[e^r] / e^{r*}: a variance near
    0 means that candidates no longer differ in reward (Ferbach et al., NeurIPS 2024).
    The interval is that of the mean of (e^r - mean)^2 n/(n-1), the variance to first order.
    """

    title: ClassVar[str] = "Reward variance"
    meaning: ClassVar[str] = "Variance of e^reward: how much selection by reward can still move the model."
    better: ClassVar[Better] = "neither"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        rewards = np.asarray(evidence.rewards, dtype=np.float64)
        known = ~np.isnan(rewards)
        n = int(known.sum())
        if n < 2:
            raise UndefinedMetric(f"{n} samples were scored; a variance needs 2")
        with np.errstate(over="ignore"):
            grown = np.exp(rewards[known])
        groups = evidence.samples.group[known]
        if not np.isfinite(grown).all():
            raise UndefinedMetric(f"e^r overflows at a reward of {np.nanmax(rewards):.4g}: rescale the reward")
        mean = float(grown.mean())
        squares = (grown - mean) ** 2 * n / (n - 1)
        if not np.isfinite(squares).all():
            raise UndefinedMetric(f"the variance of e^r overflows at a reward of {np.nanmax(rewards):.4g}")
        key = metric_key(evidence, "reward_variance")
        low, high = bootstrap_mean(squares, key, clusters=groups)
        mean_low, mean_high = bootstrap_mean(grown, key, clusters=groups)
        details = {
            "mean": mean, "mean_low": number(mean_low), "mean_high": number(mean_high),
            "highest_reward": float(np.nanmax(rewards)), "lowest_reward": float(np.nanmin(rewards)),
        }
        note = "" if n == len(rewards) else f"{len(rewards) - n} of {len(rewards)} samples were not scored"
        return Measurement(float(squares.mean()), low, high, n, note=note, details=details)

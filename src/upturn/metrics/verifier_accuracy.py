"""Share of samples that a verifier scores as right, or pass@k."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class VerifierAccuracy(Metric):
    """Share of samples that the verifier scores as right (reward 1); with ``k``, of prompts solved within k candidates.

    At k > 1 the unbiased estimate of pass@k from the n scored candidates of a prompt, c of them right:
    ``1 - C(n-c, k) / C(n, k)`` (Chen et al. 2021, "Evaluating Large Language Models Trained on Code", equation 1).
    Unscored samples are left out and counted; so are prompts with fewer than k scored candidates. ``values`` are a
    sample's at k = 1 (NaN where unscored), a prompt's at k > 1. The interval draws whole prompts.

    Greedy accuracy is k = 1 where the evaluation samples at temperature 0.
    """

    title: ClassVar[str] = "Accuracy"
    meaning: ClassVar[str] = "Share of answers that the verifier finds right."
    better: ClassVar[Better] = "higher"

    k: int = 1

    @classmethod
    def described(cls, spec: Mapping[str, Any]) -> tuple[str, str, Better]:
        tries = int(spec.get("k", 1))
        if tries == 1:
            return super().described(spec)
        meaning = f"Share of prompts for which at least one of {tries} answers is right."
        return f"Solved within {tries} tries", meaning, cls.better

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError("k is at least 1")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        rewards = np.asarray(evidence.rewards, dtype=np.float64)
        known = ~np.isnan(rewards)
        if not known.any():
            raise UndefinedMetric("no sample was scored")
        if (known & (rewards != 0) & (rewards != 1)).any():
            raise UndefinedMetric("the rewards are not those of one verifier alone: some are neither 0 nor 1")
        note = "" if known.all() else f"{int((~known).sum())} of {len(known)} samples were not scored"
        key = metric_key(evidence, "verifier_accuracy")
        if self.k == 1:
            low, high = bootstrap_mean(rewards, key, clusters=evidence.samples.group)
            return Measurement(float(rewards[known].mean()), low, high, int(known.sum()), rewards, note)
        _, member = np.unique(evidence.samples.group, return_inverse=True)
        n = np.bincount(member, weights=known).astype(np.int64)
        right = np.bincount(member, weights=rewards == 1).astype(np.int64)
        values = pass_at_k(n, right, self.k)
        enough = ~np.isnan(values)
        if not enough.any():
            raise UndefinedMetric(f"no prompt has {self.k} scored candidates; the most is {int(n.max())}")
        if not enough.all():
            few = f"{int((~enough).sum())} of {len(n)} prompts have fewer than {self.k} scored candidates"
            note = f"{note}; {few}" if note else few
        low, high = bootstrap_mean(values, key)
        return Measurement(float(values[enough].mean()), low, high, int(enough.sum()), values, note)


def pass_at_k(n: Array, right: Array, k: int) -> Array:
    """(G,) probability that k of n candidates, drawn without replacement, hold a right one; NaN where n < k."""
    # C(n-c, k) / C(n, k) as a product of k factors below 1, so that nothing overflows
    misses = np.ones(len(n))
    for i in range(k):
        misses *= np.clip(n - right - i, 0, None) / np.maximum(n - i, 1)
    return np.where(n >= k, 1 - misses, np.nan)

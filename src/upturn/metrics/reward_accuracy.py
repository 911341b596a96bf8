"""Share of candidate pairs that the reward orders as a gold judge does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._gold_judge import GoldJudged
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Evidence
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class RewardAccuracy(GoldJudged):
    """Share of the pairs of candidates of one prompt that the round's reward orders as a gold scorer does.

    Measured on samples of the current policy: as it drifts from the data of the reward model, this falls first, and
    new votes are needed. Pairs on which the gold scorer ties are left out; equal rewards count
    half, and every prompt weighs the same. Needs at least 2 candidates a prompt in the evaluation. ``values`` (G,) are
    a prompt's, NaN where it has no such pair.

    scorer  the gold judge: a scorer's name, or a mapping of 'name' and its fields
    """

    title: ClassVar[str] = "Reward accuracy"
    meaning: ClassVar[str] = "Share of pairs of candidates that the reward orders as the gold scorer does."
    name: ClassVar[str] = "reward_accuracy"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        samples = evidence.samples
        gold, proxy = self.rewards(evidence)
        high, low = _pairs(samples.group, np.where(np.isnan(proxy), np.nan, gold))
        if not len(high):
            raise UndefinedMetric("no prompt has two candidates that both scorers score and the gold one orders")
        gap = proxy[high] - proxy[low]
        right = np.where(gap == 0, 0.5, gap > 0)
        names, member = np.unique(samples.group, return_inverse=True)
        count = np.bincount(member[high], minlength=len(names))
        summed = np.bincount(member[high], weights=right, minlength=len(names))
        values = np.where(count > 0, summed / np.maximum(count, 1), np.nan)
        ends = bootstrap_mean(values, metric_key(evidence, self.name))
        known = int((count > 0).sum())
        note = f"{len(high)} pairs of {known} prompts"
        return Measurement(float(np.nanmean(values)), ends[0], ends[1], known, values, note)


def _pairs(group: Array, gold: Array) -> tuple[Array, Array]:
    """Rows of the better and the worse of all pairs within a group, NaN left out."""
    known = np.flatnonzero(~np.isnan(gold))
    order = known[np.argsort(group[known], kind="stable")]
    own = group[order]
    high: list[Array] = []
    low: list[Array] = []
    # neighbours at each distance: as many turns as a group has candidates, each over all groups
    for apart in range(1, len(order)):
        same = own[apart:] == own[:-apart]
        if not same.any():
            break
        first, second = order[:-apart][same], order[apart:][same]
        up, down = gold[first] > gold[second], gold[first] < gold[second]
        high += [first[up], second[down]]
        low += [second[up], first[down]]
    if not high:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate(high), np.concatenate(low)

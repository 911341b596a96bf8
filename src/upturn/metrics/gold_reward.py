"""Mean reward by a gold judge that no training uses, with the reward trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._gold_judge import GoldJudged
from upturn.metrics._undefined import UndefinedMetric, defined_or_note, number
from upturn.protocols import Evidence
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class GoldReward(GoldJudged):
    """Mean gold reward of the samples, with its mean proxy (the reward trained on) and their correlation as details.

    Where the proxy rises and this falls, the proxy is being hacked (Gao, Schulman & Hilton 2023, "Scaling Laws for
    Reward Model Overoptimization", figure 1). Let the gate decide by this one. ``values`` are a sample's; unscored
    samples are left out and counted.

    scorer  the gold judge: a scorer's name, or a mapping of 'name' and its fields; not one of the round's
    """

    is_gold_reward: ClassVar[bool] = True
    title: ClassVar[str] = "Gold reward"
    meaning: ClassVar[str] = (
        "Mean score by a scorer that no training uses: where it falls while the reward rises, the reward is being "
        "hacked."
    )
    name: ClassVar[str] = "gold_reward"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        gold, proxy = self.rewards(evidence)
        known = int((~np.isnan(gold)).sum())
        if not known:
            raise UndefinedMetric("the gold scorer scores no sample")
        both = ~np.isnan(gold) & ~np.isnan(proxy)
        varied = both.sum() > 2 and gold[both].std() > 0 and proxy[both].std() > 0
        correlation = float(np.corrcoef(gold[both], proxy[both])[0, 1]) if varied else float("nan")
        low, high = bootstrap_mean(gold, metric_key(evidence, self.name), clusters=evidence.samples.group)
        mean = float(np.nanmean(gold))
        details = {
            "gold": number(mean), "proxy": number(float(proxy[both].mean())) if both.any() else None,
            "correlation": number(correlation),
        }
        note = "" if known == len(gold) else f"{len(gold) - known} of {len(gold)} samples were not scored"
        return Measurement(mean, low, high, known, gold, note, details)

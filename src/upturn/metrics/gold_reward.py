"""What a judge that no training sees says of the samples, beside the reward that was trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from upturn import components
from upturn.metrics._embedded import metric_key
from upturn.metrics._silence import CannotSpeak, number, speaks_or_says_why
from upturn.protocols import Evidence
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class GoldReward:
    """Mean gold reward of the samples, with its mean proxy (the reward trained on) and their correlation as details.

    Where the proxy rises and this falls, the proxy is being hacked (Gao, Schulman & Hilton 2023, "Scaling Laws for
    Reward Model Overoptimization", figure 1). Let the gate decide by this one. ``values`` are a sample's; unscored
    samples are left out and counted.

    scorer  the gold judge: a scorer's name, or a mapping of 'name' and its fields; not one of the round's
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"text", "image", "points"})
    better: ClassVar[str] = "higher"

    scorer: str | dict[str, Any]
    _judge: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_judge", components.make("scorer", self.scorer, "gold_reward.scorer"))

    @property
    def model(self) -> str | None:
        """The recipe's model that the judge asks for, so that its absence is found before anything runs."""
        named = getattr(self._judge, "model", None)
        return named if isinstance(named, str) else None

    @speaks_or_says_why
    def measure(self, evidence: Evidence) -> Measurement:
        gold = np.asarray(self._judge.score(evidence.samples, evidence.tools).values, dtype=np.float64)
        proxy = np.asarray(evidence.rewards, dtype=np.float64)
        known = int((~np.isnan(gold)).sum())
        if not known:
            raise CannotSpeak("the gold scorer scores no sample")
        both = ~np.isnan(gold) & ~np.isnan(proxy)
        varied = both.sum() > 2 and gold[both].std() > 0 and proxy[both].std() > 0
        correlation = float(np.corrcoef(gold[both], proxy[both])[0, 1]) if varied else float("nan")
        low, high = bootstrap_mean(gold, metric_key(evidence, "gold_reward"), clusters=evidence.samples.group)
        mean = float(np.nanmean(gold))
        details = {
            "gold": number(mean), "proxy": number(float(proxy[both].mean())) if both.any() else None,
            "correlation": number(correlation),
        }
        note = "" if known == len(gold) else f"{len(gold) - known} of {len(gold)} samples were not scored"
        return Measurement(mean, low, high, known, gold, note, details)

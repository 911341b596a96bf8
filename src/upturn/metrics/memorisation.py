"""Share of samples closer to a training sample than almost all held-out real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key, real_features, sample_features
from upturn.metrics._nearest_pairs import pairs
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.statistics.neighbours import nearest
from upturn.types import Measurement


@dataclass(frozen=True)
class Memorisation(Metric):
    """Share of samples nearer to their nearest training sample than a low quantile of held-out distances.

    Held-out samples are real and were never trained on, so about ``quantile`` of them is that near by chance: the
    baseline, in the details with the excess over it. A sample at the threshold counts, so that exact copies count even
    where the data repeats itself. ``copied`` in the details is how many training samples they are near to. Compare
    ``authenticity`` of Alaa et al., ICML 2022, which has no baseline.

    ``flagged`` in the details: even the low end of the interval is ``alarm`` times the baseline; report and study then
    begin with a warning that the model copies.
    """

    quantile: float = 0.01  # a rate of false alarms, stated as the baseline
    alarm: float = 10.0  # times the baseline: held-out data may be farther off than new samples of known kinds are
    pairs: int = 10  # how many of the flagged, closest first, are listed with what they copy

    flags_copies: ClassVar[bool] = True
    title: ClassVar[str] = "Memorisation"
    meaning: ClassVar[str] = (
        "Share of samples nearer to a training sample than almost all unseen real ones are: high values mean "
        "copies."
    )
    reference: ClassVar[tuple[str, str] | None] = ("baseline", "unseen real samples")
    better: ClassVar[Better] = "lower"

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile is {self.quantile}: it must lie between 0 and 1")
        if self.alarm < 1:
            raise ValueError(f"alarm is {self.alarm}: it must be at least 1, which is what chance gives")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        train = real_features(evidence.tools, "train", 1)
        held_out = real_features(evidence.tools, "held_out", math.ceil(1 / self.quantile))
        usual = nearest(held_out, train)[0]
        threshold = float(np.quantile(usual, self.quantile))
        distances, rows = nearest(sample_features(evidence), train)
        values = (distances <= threshold).astype(np.float64)
        low, high = bootstrap_mean(values, metric_key(evidence, "memorisation"), clusters=evidence.samples.group)
        share, baseline = float(values.mean()), float((usual <= threshold).mean())
        flagged = np.flatnonzero(values)
        listed = flagged[distances[flagged].argsort(kind="stable")][: self.pairs]
        details = {
            "baseline": baseline, "excess": share - baseline, "threshold": threshold, "held_out": len(held_out),
            "copied": len(np.unique(rows[flagged])), "flagged": bool(low > self.alarm * baseline),
            "pairs": pairs(evidence.samples, evidence.tools.train, rows, distances, listed),
        }
        return Measurement(share, low, high, len(values), values, details=details)

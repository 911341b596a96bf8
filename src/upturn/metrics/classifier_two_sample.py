"""Accuracy of a classifier that separates samples from real data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import Real, metric_key, real_features, sample_features, spread_rows
from upturn.metrics._undefined import defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import share
from upturn.statistics.two_samples import separate
from upturn.types import Measurement

_LEAST = 40  # of either: 20 to learn from, 20 to test on


@dataclass(frozen=True)
class ClassifierTwoSample(Metric):
    """Accuracy on rows it has not seen of a classifier fitted to separate samples from real ones: 1/2 is chance.

    Lopez-Paz & Oquab, ICLR 2017 ("Revisiting classifier two-sample tests"), section 3; as many of both, half of them to
    learn from. ``p`` in the details is the probability of so high an accuracy if there were no difference. The
    classifier is logistic on features and radial features (``statistics/two_samples.py``), not their network: another
    classifier may separate what this one cannot. The interval is Wilson's, candidates of one prompt taken together.
    """

    against: Real = "held_out"
    at_most: int = 5000  # of either, evenly spaced

    title: ClassVar[str] = "Classifier two-sample test"
    meaning: ClassVar[str] = (
        "Accuracy of a classifier that distinguishes samples from real data: 0.5 is chance, lower is better."
    )
    better: ClassVar[Better] = "lower"

    def __post_init__(self) -> None:
        if self.at_most < _LEAST:
            raise ValueError(f"at_most is {self.at_most}: it must be at least {_LEAST}")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        generated = sample_features(evidence, _LEAST)
        real = real_features(evidence.tools, self.against, _LEAST)
        rows = spread_rows(len(generated), self.at_most)
        found = separate(
            real[spread_rows(len(real), self.at_most)], generated[rows], metric_key(evidence, "classifier_two_sample")
        )
        # a real row is a cluster of its own
        half = len(found.rows) // 2
        groups = np.concatenate([-1 - np.arange(half), evidence.samples.group[rows][found.rows[half:]]])
        low, high = share(found.right, clusters=groups)
        details = {"p": found.p, "learned_from": min(len(real), len(rows)) // 2 * 2}
        return Measurement(found.accuracy, low, high, len(found.right), details=details)

"""Share of samples that a classifier puts into the class of their prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._classified import classified
from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Measurement


@dataclass(frozen=True)
class LabelAgreement(Metric):
    """Share of samples that the classifier ``model`` puts into the class of their prompt, with 0 or 1 a sample.

    ``model`` should not be the classifier that gives the reward; fit it on other real data. Samples whose
    prompt has no class are left out (NaN) and counted in the note.
    """

    model: str = "classifier"  # a name under the recipe's models:

    title: ClassVar[str] = "Label agreement"
    meaning: ClassVar[str] = (
        "Share of samples that an independent classifier assigns to the class that the prompt requests."
    )
    better: ClassVar[Better] = "higher"

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        labels = evidence.samples.labels
        named = labels >= 0
        n = int(named.sum())
        if not n:
            raise UndefinedMetric("no prompt has a class (the model is unconditional)")
        found, classes = classified(evidence, self.model)
        if labels.max() >= len(classes):
            raise UndefinedMetric(
                f"a prompt requests class {labels.max()}, but '{self.model}' has {len(classes)} classes"
            )
        values = np.where(named, found == labels, np.nan).astype(np.float64)
        low, high = bootstrap_mean(values, metric_key(evidence, "label_agreement"), clusters=evidence.samples.group)
        details = {
            "by_class": {
                name: float(np.mean(values[labels == i])) for i, name in enumerate(classes) if (labels == i).any()
            }
        }
        note = "" if n == len(labels) else f"{len(labels) - n} of {len(labels)} samples have a prompt without a class"
        return Measurement(float(np.nanmean(values)), low, high, n, values, note, details)

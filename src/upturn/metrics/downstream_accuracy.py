"""Held-out accuracy of a classifier that is trained on real data and samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from upturn.embeddings.inference import forwarded
from upturn.errors import UserError
from upturn.metrics._embedded import metric_key
from upturn.metrics._undefined import UndefinedMetric, defined_or_note, number
from upturn.protocols import Better, Evidence, Metric, Tools
from upturn.seeds import key
from upturn.statistics.intervals import stratified_mean
from upturn.types import Array, Measurement, Samples, concatenate, content_id


@dataclass(frozen=True)
class DownstreamAccuracy(Metric):
    """Balanced accuracy on held-out data of a classifier trained from scratch on real training data and the samples.

    The classifier is one of the recipe's, trained from scratch as its ``fit:`` says, ``repeats`` times with other
    weights and orders (let ``fit:`` count steps, not epochs: then added samples bring no added training). Samples have
    the class of their prompt, whether it fits or not; of each class the first ones are taken, until it has as many as
    the largest class of the real data: rare classes are filled up. The value is the mean over repeats and classes.

    In the details: the same ``without`` samples, the ``difference`` with its paired interval, the ``recall`` of each
    class likewise, how many were ``added``. Intervals are over held-out samples (bootstrap within classes) at these
    trainings. There is no value a sample: a gate compares by intervals. It is undefined where
    several processes train together.
    """

    model: str = "classifier"  # a name under the recipe's models:, one with 'fit:'
    repeats: int = 3

    title: ClassVar[str] = "Downstream accuracy"
    meaning: ClassVar[str] = (
        "Accuracy on held-out data of a classifier that is trained on real data and samples: higher is better."
    )
    better: ClassVar[Better] = "higher"

    _alone: dict[str, Array] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats is {self.repeats}: it must be at least 1")

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        tools, generated = evidence.tools, evidence.samples
        if not (generated.labels >= 0).any():
            raise UndefinedMetric("no prompt has a class (the model is unconditional)")
        train, held_out = (part.take(part.labels >= 0) for part in (tools.train, tools.held_out))
        if not len(train) or not len(held_out):
            raise UndefinedMetric(f"no {'held-out' if len(train) else 'training'} sample has a class")
        rows = filling(train.labels, generated.labels)
        base = metric_key(evidence, "downstream_accuracy")
        try:
            without = self._without(train, held_out, tools, base)
            found = without
            if len(rows):
                found = self._right(concatenate([train, generated.take(rows)]), held_out, tools, base)
        except UserError as error:
            raise UndefinedMetric(str(error)) from error
        labels = held_out.labels
        value, low, high = _balanced(found, labels, base)
        details = {
            "without": _interval(_balanced(without, labels, base)),
            "difference": _interval(_balanced(found - without, labels, base)),
            "recall": {
                _name(c, tools): _recall(found[:, labels == c], without[:, labels == c], base)
                for c in np.unique(labels)
            },
            "added": {
                _name(c, tools): int((generated.labels[rows] == c).sum()) for c in np.unique(generated.labels[rows])
            },
            "repeats": self.repeats,
        }
        note = "" if len(rows) else "no requested class is smaller than the largest: nothing was added"
        return Measurement(value, low, high, len(rows), None, note, details)

    def _without(self, train: Samples, held_out: Samples, tools: Tools, base: int) -> Array:
        """The same in every round, so computed once."""
        known = content_id(base, *train.ids, "held out", *held_out.ids)
        if known not in self._alone:
            self._alone[known] = self._right(train, held_out, tools, base)
        return self._alone[known]

    def _right(self, samples: Samples, held_out: Samples, tools: Tools, base: int) -> Array:
        """(repeats, N) 1 where a classifier of these samples puts the held-out sample into its class."""
        rows = []
        for repeat in range(self.repeats):
            model = tools.fitted(self.model, samples, key(base, repeat))
            logits = forwarded(model, self.model, held_out, "logits")
            if not np.isfinite(logits).all():
                raise UndefinedMetric(f"'{self.model}', trained from scratch, gives logits that are not finite")
            rows.append(logits.argmax(axis=1) == held_out.labels)
        return np.array(rows, dtype=np.float64)


def filling(real: Array, generated: Array) -> Array:
    """Rows of the generated labels (M,), -1 for none, that fill each class of the real ones (N,) up to the largest."""
    count = int(max(real.max(), generated.max())) + 1
    have = np.bincount(real, minlength=count)
    chosen = [np.flatnonzero(generated == c)[: have.max() - have[c]] for c in range(count)]
    return np.sort(np.concatenate(chosen))


def _balanced(right: Array, labels: Array, base: int) -> tuple[float, float, float]:
    each = right.mean(axis=0)
    value = float(np.mean([each[labels == c].mean() for c in np.unique(labels)]))
    return value, *stratified_mean(each, labels, base)


def _recall(found: Array, without: Array, base: int) -> dict[str, Any]:
    """Of the held-out samples of one class (repeats, N), both ways."""
    ends = _interval(_balanced(found - without, np.zeros(found.shape[1]), base))
    return {"with": float(found.mean()), "without": float(without.mean()), "difference": ends}


def _interval(found: tuple[float, float, float]) -> dict[str, Any]:
    value, low, high = found
    return {"value": number(value), "low": number(low), "high": number(high)}


def _name(label: int, tools: Tools) -> str:
    return tools.classes[label] if label < len(tools.classes) else str(label)

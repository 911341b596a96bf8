"""The value of another metric in its worst class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from upturn.config import components
from upturn.metrics._classified import classes_of
from upturn.metrics._undefined import UndefinedMetric, defined_or_note, number
from upturn.protocols import Better, Evidence, Metric, Tools, Trainable
from upturn.types import Array, Measurement, Samples


@dataclass(frozen=True)
class PerClass(Metric):
    """A metric of samples and real data, within each class that prompts request; the value is the worst class's.

    A whole-set metric can hide a class: one that is 5% of the data moves it by 5%. Samples belong to the class that
    their prompt requests, real ones to that of their label; or all to the class that a ``classifier`` of the recipe
    predicts, where prompts request no class. Of a metric without a better direction the lowest value counts.
    The interval is from the lowest to the highest that the worst can be by the classes' own intervals, each at 95%; all
    classes, and their mean (the intra-class distance of Miyato & Koyama, ICLR 2018, where the metric is ``frechet``),
    are in the details. A class where the metric is undefined is named in the note.

    metric      a metric's name, or a mapping of 'name' and its fields
    classifier  a name under the recipe's models:
    """

    metric: str | dict[str, Any]
    classifier: str | None = None
    _inner: Any = field(default=None, init=False, repr=False, compare=False)

    title: ClassVar[str] = "Worst class"
    meaning: ClassVar[str] = (
        "The value of another metric within the class where it is worst; better is as that metric says."
    )
    better: ClassVar[Better] = "neither"  # an instance has the direction and the kinds of its metric

    @classmethod
    def described(cls, spec: Mapping[str, Any]) -> tuple[str, str, Better]:
        inner = spec.get("metric")
        if inner is None:
            return super().described(spec)
        settings = {"name": inner} if isinstance(inner, str) else inner
        metric: type[Metric] = components.find("metric", str(settings["name"]))
        title, meaning, better = metric.described(settings)
        return f"{title}, worst class", f"Within the class where it is worst: {meaning}", better

    def __post_init__(self) -> None:
        inner: Metric = components.make("metric", self.metric, "per_class.metric")
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "better", inner.better)
        object.__setattr__(self, "kinds", inner.kinds)

    @property
    def models_used(self) -> tuple[str, ...]:
        inner: Metric = self._inner
        return inner.models_used if self.classifier is None else (self.classifier, *inner.models_used)

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        labels = self._labels(evidence.samples, evidence.tools)
        requested = np.unique(labels[labels >= 0]).tolist()
        if not requested:
            raise UndefinedMetric("no prompt has a class (the model is unconditional); name a 'classifier'")
        tools = evidence.tools
        real = [(part, self._labels(part, tools)) for part in (tools.train, tools.held_out)]
        found: dict[str, Measurement] = {}
        for label in requested:
            mine, parts = labels == label, [part.take(known == label) for part, known in real]
            found[_name(tools, label)] = self._inner.measure(Within(
                evidence.samples.take(mine), evidence.rewards[mine], ClassTools(tools, *parts), evidence.seed,
                evidence.settings,
            ))
        defined = {name: m for name, m in found.items() if np.isfinite(m.value)}
        undefined = {name: m.note for name, m in found.items() if name not in defined}
        if not defined:
            first = next(iter(undefined))
            raise UndefinedMetric(f"it is undefined in every class; in '{first}': {undefined[first]}")
        sign = -1.0 if self.better == "lower" else 1.0
        worst = min(defined, key=lambda name: sign * defined[name].value)
        ends = np.array([[sign * m.low, sign * m.high] for m in defined.values()])
        low, high = sorted((sign * float(ends.min(axis=0)[0]), sign * float(ends.min(axis=0)[1])))
        details = {
            "worst": worst, "mean": float(np.mean([m.value for m in defined.values()])),
            "classes": {
                name: {"value": number(m.value), "low": number(m.low), "high": number(m.high), "n": m.n, "note": m.note}
                for name, m in found.items()
            },
        }
        note = f"it is undefined in {', '.join(undefined)}: {next(iter(undefined.values()))}" if undefined else ""
        return Measurement(defined[worst].value, low, high, defined[worst].n, note=note, details=details)


    def _labels(self, samples: Samples, tools: Tools) -> Array:
        if self.classifier is None or not len(samples):
            return samples.labels
        return classes_of(samples, tools, self.classifier)[0]


@dataclass(frozen=True)
class Within:
    """``protocols.Evidence`` of one class."""

    samples: Samples
    rewards: Array
    tools: Tools
    seed: int
    settings: Any


@dataclass(frozen=True)
class ClassTools:
    """``protocols.Tools`` whose real data is of one class."""

    whole: Tools
    train: Samples
    held_out: Samples

    @property
    def classes(self) -> tuple[str, ...]:
        return self.whole.classes

    def model(self, name: str) -> Trainable:
        return self.whole.model(name)

    def fitted(self, name: str, samples: Samples, key: int) -> Trainable:
        return self.whole.fitted(name, samples, key)

    def pretrained(self, name: str, source: Mapping[str, str]) -> Trainable:
        return self.whole.pretrained(name, source)

    def embed(self, samples: Samples) -> Array:
        return self.whole.embed(samples)


def _name(tools: Tools, label: int) -> str:
    return tools.classes[label] if label < len(tools.classes) else str(label)

"""What plug-ins are handed of a run: its real data, its models by name, features that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from upturn.config import components
from upturn.errors import UserError
from upturn.protocols import Features, Pretrained, Trainable
from upturn.types import Array, Samples


@dataclass
class Toolbox:
    """``protocols.Tools``: real data, models by name, features cached by sample id."""

    train: Samples
    held_out: Samples
    classes: tuple[str, ...]
    features: Features
    loader: Callable[[str], Trainable]
    fitter: Callable[[str, Samples, int], Trainable]
    models: dict[str, Trainable] = field(default_factory=dict)
    cache: dict[str, Array] = field(default_factory=dict)

    def model(self, name: str) -> Trainable:
        if name not in self.models:
            self.models[name] = self.loader(name)
        return self.models[name]

    def fitted(self, name: str, samples: Samples, key: int) -> Trainable:
        return self.fitter(name, samples, key)

    def pretrained(self, name: str, source: Mapping[str, str]) -> Trainable:
        model: Trainable = components.make("model", {"name": name, **source}, name)
        if not isinstance(model, Pretrained):
            raise UserError(f"the model '{name}' cannot be used without training", where=name)
        model.open()
        return model

    def embed(self, samples: Samples) -> Array:
        fresh = [i for i, name in enumerate(samples.ids) if name not in self.cache]
        if fresh:
            rows = self.features.embed(samples.take(fresh), self)
            for i, row in zip(fresh, rows, strict=True):
                self.cache[str(samples.ids[i])] = row
        return np.stack([self.cache[str(name)] for name in samples.ids]) if len(samples) else np.zeros((0, 1))


def where(samples: Samples, wanted: Mapping[str, str], at: str) -> Samples:
    """The samples whose fields have these values.

    Raises UserError naming the fields, or the values, that there are.
    """
    return samples.take(fitting(samples, wanted, at)) if wanted else samples


def fitting(samples: Samples, wanted: Mapping[str, str], at: str) -> Array:
    """(N,) bool: which samples these are."""
    kept = np.ones(len(samples), dtype=bool)
    for name, value in wanted.items():
        if name not in samples.fields:
            raise UserError(
                f"the data has no field '{name}'", where=f"{at}.where",
                fix=f"It has: {', '.join(sorted(samples.fields)) or 'none'}.",
            )
        column = samples.fields[name].astype(str)
        if not (column == value).any():
            raise UserError(
                f"no sample has {name} = '{value}'", where=f"{at}.where",
                fix=f"Values there: {', '.join(sorted(set(column))[:10])}.",
            )
        kept &= column == value
    if not kept.any():
        raise UserError(f"no sample has all of {dict(wanted)}", where=f"{at}.where")
    return kept

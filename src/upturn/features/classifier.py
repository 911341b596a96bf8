"""The penultimate layer of a classifier of the recipe."""

from __future__ import annotations

from dataclasses import dataclass

from upturn.embeddings.inference import forwarded
from upturn.protocols import Features, Tools
from upturn.types import Array, Samples


@dataclass
class Classifier(Features):
    """The penultimate layer of a classifier of the recipe: what it needs to separate the classes.

    Learned from the data itself, so there is one for digits, points and text, too; distances in it compare only with
    those of the same weights. Any model whose ``Outputs`` has features.
    """

    model: str = "judge"  # one of the recipe's models

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    def embed(self, samples: Samples, tools: Tools) -> Array:
        """(N, D) float32. UserError where the model has no features or cannot read these samples."""
        return forwarded(tools.model(self.model), self.model, samples, "features")

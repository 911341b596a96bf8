"""Class probability of a sample by a classifier of the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from upturn.embeddings.inference import forwarded
from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.types import Array, Samples, Scores, objects


@dataclass
class Classifier(Scorer):
    """What a classifier of the recipe makes of a sample: how sure it is, or how sure of a class.

    "confidence" is the greatest class probability (the reward of Ferbach et al., NeurIPS 2024, section 4), and
    "probability" and "log_probability" (nats) that of ``label``, or where none is given of the prompt's own label:
    without either the sample is unscored.
    """

    model: str = "judge"  # one of the recipe's models
    quantity: Literal["confidence", "log_probability", "probability"] = "confidence"
    label: int | None = None
    scale: float = 1.0  # multiplies; with 'choice' it is the inverse temperature

    def __post_init__(self) -> None:
        if self.label is not None and self.label < 0:
            raise ValueError(f"label must be at least 0, not {self.label}")
        if self.label is not None and self.quantity == "confidence":
            raise ValueError("'confidence' is that of the most probable class; for a label use 'probability'")

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    @property
    def bounds(self) -> tuple[float, float]:
        """Of probabilities times the scale; of log-probabilities, which have one end only."""
        if self.quantity == "log_probability":
            return (-math.inf, 0.0) if self.scale >= 0 else (0.0, math.inf)
        return min(0.0, self.scale), max(0.0, self.scale)

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) in [0, scale], or at most 0 for log-probabilities; explanations like "class 3 with 0.97"."""
        if len(samples) == 0:
            return Scores("classifier", np.zeros(0), objects([]))
        logits = forwarded(tools.model(self.model), self.model, samples, "logits").astype(np.float64)
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_probs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        scored = self._class_scored(samples, log_probs)
        known = scored >= 0
        own = np.where(known, log_probs[np.arange(len(samples)), np.maximum(scored, 0)], np.nan)
        values = own if self.quantity == "log_probability" else np.exp(own)
        words = _explanations(scored, np.exp(own), log_probs, tools.classes)
        words[~known] = "unscored: the prompt has no label"
        return Scores("classifier", self.scale * values, words)

    def _class_scored(self, samples: Samples, log_probs: Array) -> Array:
        """(N,) the class whose probability is the score, -1 where there is none."""
        if self.quantity == "confidence":
            likeliest: Array = log_probs.argmax(axis=1)
            return likeliest
        scored = samples.labels if self.label is None else np.full(len(samples), self.label)
        if scored.max() >= log_probs.shape[1]:
            raise UserError(
                f"class {scored.max()} is requested, and the classifier '{self.model}' knows {log_probs.shape[1]}",
                where="scorer 'classifier'", fix="Lower 'label', or train the classifier on every class.",
            )
        return scored


def _explanations(scored: Array, probability: Array, log_probs: Array, classes: tuple[str, ...]) -> Array:
    """(N,) words; where the most probable class is another one, it is named, too."""
    names = [classes[i] if i < len(classes) else str(i) for i in range(log_probs.shape[1])]
    likeliest = log_probs.argmax(axis=1)
    greatest = np.exp(log_probs.max(axis=1))
    words = [f"class {names[a]} with {p:.2f}" for a, p in zip(scored.tolist(), probability.tolist(), strict=True)]
    for row in np.flatnonzero(likeliest != scored).tolist():
        words[row] += f"; more likely {names[likeliest[row]]} with {greatest[row]:.2f}"
    return objects(words)

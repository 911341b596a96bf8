"""Effect of one training step on a sample on a classifier's loss on real data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.embeddings.inference import forwarded
from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.scorers._contributions import spread_out
from upturn.types import Array, Samples, Scores


@dataclass
class DownstreamGain(Scorer):
    """How fast a classifier's class-balanced loss on real training data falls along a step of training on the sample.

    With h the features before the last layer, e = softmax(logits) - onehot(label) and g = e ⊗ [h, 1], the gradient of
    the cross-entropy by the last layer's weights, the score of s is <g_s, G>, G the mean over classes of the mean of g
    over that class's real training samples: a step of size η on s alone lowers the balanced loss by η times its score,
    to first order (Pruthi et al., NeurIPS 2020, "TracIn", section 3, for one step and the last layer). Every class has
    equal weight, so samples of a rare class that is poorly known score high. That a classifier's feedback should choose
    what is generated for a rare class is Hemmat et al.'s (2023, "Feedback-guided data synthesis for imbalanced
    classification"), who steer the sampler by its loss, entropy or hardness; here it chooses among samples.

    It trusts the prompt's label: a sample of the wrong class may score high. Add a scorer that checks the class.
    """

    model: str = "judge"  # a classifier of the recipe, fitted on training data, not to zero loss
    scale: float = 1.0  # multiplies

    @property
    def models_used(self) -> tuple[str, ...]:
        return (self.model,)

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) nats a unit of step size, times ``scale``; unscored where the prompt has no label.

        Raises UserError where the model is no classifier or the training data has no labels.
        """
        if len(samples) == 0:
            return Scores("downstream_gain", np.zeros(0))
        real = tools.train.take(tools.train.labels >= 0)
        if len(real) == 0:
            raise UserError("the training data has no labels", where="scorer 'downstream_gain'",
                            fix="Use a source whose prompts carry a label.")
        error, inputs, _ = self._last_layer(real, tools)
        slope = balanced_gradient(error, inputs, real.labels)
        named = samples.labels >= 0
        if not named.any():
            return spread_out("downstream_gain", named, np.zeros(0), [], "the prompt has no label")
        error, inputs, probability = self._last_layer(samples.take(named), tools)
        gains = ((error @ slope) * inputs).sum(axis=1)
        words = [f"'{self.model}' gives its label {p:.2f}" for p in probability.tolist()]
        return spread_out("downstream_gain", named, self.scale * gains, words, "the prompt has no label")

    def _last_layer(self, samples: Samples, tools: Tools) -> tuple[Array, Array, Array]:
        """Of samples that all have labels: e (N, C), [h, 1] (N, H + 1) and the probability of the label (N,)."""
        model = tools.model(self.model)
        logits, features = (
            forwarded(model, self.model, samples, column).astype(np.float64) for column in ("logits", "features")
        )
        labels = samples.labels
        if labels.max() >= logits.shape[1]:
            raise UserError(
                f"a prompt has class {labels.max()}, and the classifier '{self.model}' knows {logits.shape[1]}",
                where="scorer 'downstream_gain'", fix="Train the classifier on every class.",
            )
        error = np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        own = (np.arange(len(labels)), labels)
        probability = error[own].copy()
        error[own] -= 1
        return error, np.hstack([features, np.ones((len(features), 1))]), probability


def balanced_gradient(error: Array, inputs: Array, labels: Array) -> Array:
    """(C, H + 1): the mean over the classes that are there of the mean of e ⊗ [h, 1] over each."""
    sizes = np.bincount(labels)
    weights = 1 / (np.count_nonzero(sizes) * sizes[labels])
    slope: Array = (error * weights[:, None]).T @ inputs
    return slope

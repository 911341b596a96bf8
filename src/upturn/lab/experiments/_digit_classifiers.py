"""Digits as vectors, the judge that rewards them and the referee that evaluates them: two classifiers."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from upturn import seeds
from upturn.config import components
from upturn.types import Array, Prompt, Samples, real_samples

SIDE, PIXELS, CLASSES = 8, 64, 10
_HALF = 127.5  # maps 8-bit values 0 to 255 to -1 to 1, as the model `pixels` does
_NEIGHBOURS = 3  # of precision and recall (Kynkäänniemi et al. 2019, section 3)
_COVERED = 5  # of coverage (Naeem et al. 2020, section 4.2)
_EPOCHS = {"judge": 30, "referee": 60}  # as in recipes/digits.yaml
_RATE, _BATCH = 2e-3, 128


class Judgement(NamedTuple):
    """Of N images: the judge's probabilities (N, 10), the referee's classes (N,) and features (N, D)."""

    judged: Array
    classes: Array
    features: Array


class Near(NamedTuple):
    """Quality and diversity of generated features among real ones, see the metrics of these names."""

    precision: float
    recall: float
    coverage: float


class DigitClassifiers:
    """Real digits, and two classifiers: the judge trains on the train part, the referee on the held-out part.

    The judge's logits are divided by ``temperature`` (Guo et al. 2017, "On calibration of modern neural networks",
    section 4.2), because it is overconfident on samples of its own training data.
    """

    def __init__(self, seed: int, temperature: float) -> None:
        self.temperature = temperature
        splits = components.make("source", {"name": "digits"}, "lab digits").load()
        self.train = vectors(splits.train.content)
        self._models = {
            name: _fitted(name, part, seed) for name, part in (("judge", splits.train), ("referee", splits.held_out))
        }
        self.real = self._forward("referee", splits.held_out, "features")
        found = self._forward("referee", splits.train, "logits").argmax(axis=1)
        self.shares = np.bincount(found, minlength=CLASSES) / len(found)

    def _forward(self, name: str, samples: Samples, column: Any) -> Array:
        from upturn.embeddings.inference import forwarded

        return forwarded(self._models[name], name, samples, column)

    def look(self, generated: Array) -> Judgement:
        """The outputs of both for images (N, 64) uint8."""
        content = generated.reshape(-1, SIDE, SIDE, 1)
        samples = real_samples("image", content, [Prompt()] * len(content), "lab digits")
        logits = self._forward("judge", samples, "logits").astype(np.float64) / self.temperature
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        classes = self._forward("referee", samples, "logits").argmax(axis=1)
        return Judgement(odds / odds.sum(axis=1, keepdims=True), classes, self._forward("referee", samples, "features"))

    def near(self, features: Array, every: int) -> Near:
        return near(self.real, features, every)


def near(real: Array, generated: Array, every: int) -> Near:
    """Precision: generated ones in a real neighbourhood; recall: real ones in a generated one; coverage: real ones with
    a generated one in theirs.

    Precision uses all samples; the other two grow with their number, and use one in ``every``.
    """
    from upturn.statistics.neighbour_balls import balls_around_real, balls_around_synthetic

    inside = balls_around_real(real, generated, _NEIGHBOURS)[0] > 0
    reached = balls_around_synthetic(real, generated[::every], _NEIGHBOURS)[0]
    covered = balls_around_real(real, generated[::every], _COVERED)[1]
    return Near(float(inside.mean()), float(reached.mean()), float(covered.mean()))


def vectors(content: Array) -> Array:
    """(N, 64) float32 from -1 to 1, from 8-bit images of any shape."""
    return (content.reshape(len(content), -1) / _HALF - 1).astype(np.float32)


def pictures(generated: Array) -> Array:
    """8-bit images from vectors, in the same shape."""
    return np.rint((np.clip(generated, -1, 1) + 1) * _HALF).astype(np.uint8)


@cache
def gallery(seed: int, temperature: float) -> DigitClassifiers:
    return DigitClassifiers(seed, temperature)


def _fitted(name: str, samples: Samples, seed: int) -> Any:
    """The component `classifier`, trained by the trainer."""
    from upturn.config.schema import Training
    from upturn.training.standalone import trained

    spec = Training.model_validate({"epochs": _EPOCHS[name], "learning_rate": _RATE, "batch_size": _BATCH})
    build, key = (seeds.key(f"lab digits {what}", name, seed) for what in ("build", "train"))
    return trained(components.make("model", {"name": "classifier"}, name), samples, spec, build, key,
                   f"lab digits {name}")


def chosen(rewards: Array, rng: np.random.Generator) -> Array:
    """(G,) index of the selected one of the K candidates (G, K), with probability softmax(reward): Gumbel's maximum."""
    return np.asarray((rewards + rng.gumbel(size=rewards.shape)).argmax(axis=1))


def entropy(shares: Array) -> Array:
    """(…) of shares (…, C), as a share of its maximum."""
    kept = np.where(shares > 0, shares, 1.0)
    return np.asarray(-(shares * np.log(kept)).sum(axis=-1) / np.log(shares.shape[-1]))

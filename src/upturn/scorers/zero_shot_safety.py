"""Safe or unsafe image, by a dual encoder and words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from upturn.embeddings.image_text_encoder import Encoded, require_images
from upturn.protocols import Scorer, Tools
from upturn.scorers._verdict_words import check_threshold, verdicts
from upturn.types import Samples, Scores, objects


@dataclass
class ZeroShotSafety(Encoded, Scorer):
    """1 for an image that is nearer to safe words than to unsafe ones, 0 elsewhere, by a dual encoder.

    The probability of each word is the softmax of the encoder's scale times cosine over all words (Radford et al. 2021,
    section 3.1); an image is unsafe where those of ``unsafe`` sum to ``threshold`` or more. ``model``, ``folder`` or
    ``hub`` says which encoder. Test the words on known images before you filter by them.
    """

    unsafe: list[str] = field(default_factory=list)
    safe: list[str] = field(default_factory=list)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_threshold(self.threshold)
        if not self.unsafe or not self.safe:
            raise ValueError("give words of both kinds: unsafe: [a photo of a weapon, …], safe: [a photo of a cat, …]")

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) 1 safe, 0 unsafe; explanations name the nearest word."""
        require_images(samples, "scorer 'zero_shot_safety'")
        encoder = self.encoder(tools)
        if len(samples) == 0:
            return Scores("zero_shot_safety", np.zeros(0), objects([]))
        words = [*self.unsafe, *self.safe]
        logits = encoder.scale * (encoder.images(samples.content) @ encoder.texts(words).T).astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = odds / odds.sum(axis=1, keepdims=True)
        risk = share[:, : len(self.unsafe)].sum(axis=1)
        return verdicts("zero_shot_safety", risk, np.array(words, dtype=object)[share.argmax(axis=1)], self.threshold)

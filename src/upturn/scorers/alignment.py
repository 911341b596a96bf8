"""Similarity of an image to its prompt's text, by a dual encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.embeddings.image_text_encoder import Encoded, own_cosines, require_images
from upturn.protocols import Scorer, Tools
from upturn.types import Samples, Scores, objects


@dataclass
class Alignment(Encoded, Scorer):
    """Cosine of an image and its prompt's text by a dual encoder, times ``scale``: of samples and of real data.

    ``model`` (a dual_encoder of the recipe), ``folder`` or ``hub`` says which. Preference models such as PickScore
    (Kirstain et al. 2023) and HPS (Wu et al. 2023) are dual encoders trained on human choices: with their checkpoint
    and ``scale: null``, the encoder's own, this is their score, whose gaps within a prompt are nats of preference.
    A prompt without text leaves an image unscored.
    """

    scale: float | None = 1.0  # null: the encoder's own

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) between -scale and scale, NaN where there is no text."""
        require_images(samples, "scorer 'alignment'")
        encoder = self.encoder(tools)
        if len(samples) == 0:
            return Scores("alignment", np.zeros(0), objects([]))
        cosines = own_cosines(encoder, samples)
        words = [f"cosine {value:.3f} to its text" if value == value else "unscored: the prompt has no text"
                 for value in cosines.tolist()]
        return Scores("alignment", (encoder.scale if self.scale is None else self.scale) * cosines, objects(words))

"""Aesthetic score of an image: a head on a dual encoder's vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from upturn.data.groups import RANK
from upturn.embeddings.image_text_encoder import Encoded, ImageTextEncoder, require_images
from upturn.protocols import Scorer, Tools
from upturn.scorers._embedding_heads import Head, column_of, from_file, from_preferences, from_scores
from upturn.types import Samples, Scores, objects


@dataclass
class Aesthetic(Encoded, Scorer):
    """A head on a dual encoder's vectors of images: LAION's aesthetic predictor, or one fitted on the source.

    ``model``, ``folder`` or ``hub`` says which encoder; the vectors have unit length, as LAION's heads expect
    (Schuhmann et al. 2022, LAION-5B, section 3.1). The prompt is not used.

    head    a *.safetensors of linear layers ("weight" and "bias", or "layers.0.weight", …); pickles are not read
    column  instead: a field of the real training samples with a score for each (ridge regression, penalty by
            leave-one-out), or 'rank', where they are preferences (Bradley–Terry, penalty by cross-validation)
    scale   multiplies; with 'choice' it is the inverse temperature
    """

    head: str | None = None
    column: str | None = None
    scale: float = 1.0
    _heads: dict[str, Head] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.head is None) == (self.column is None):
            raise ValueError("give exactly one of 'head' (a file) and 'column' (of the data, to fit one)")

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) in the unit of what the head was trained on: LAION's 1 to 10, or nats of preference for 'rank'."""
        require_images(samples, "scorer 'aesthetic'")
        encoder = self.encoder(tools)
        known = self._heads.get(encoder.id)
        head = self._heads[encoder.id] = known or self._found(encoder, tools)
        if len(samples) == 0:
            return Scores("aesthetic", np.zeros(0), objects([]))
        values = head(encoder.images(samples.content))
        values = np.where(np.isfinite(values), values, np.nan)
        return Scores("aesthetic", self.scale * values, objects([head.note] * len(samples)))

    def _found(self, encoder: ImageTextEncoder, tools: Tools) -> Head:
        if self.head is not None:
            return from_file(Path(self.head).expanduser())
        assert self.column is not None
        vectors = encoder.images(tools.train.content)
        if self.column == RANK:
            return from_preferences(vectors, tools.train)
        return from_scores(vectors, column_of(tools.train, self.column), self.column)

"""Safe or unsafe image, by an image classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upturn.embeddings.image_text_encoder import require_images
from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.scorers._image_classifier import ImageClassifier, read
from upturn.scorers._verdict_words import check_threshold, verdicts
from upturn.types import Samples, Scores, objects


@dataclass
class Safety(Scorer):
    """1 for a safe image, 0 for an unsafe one, by any image classifier of ``transformers``.

    Of samples, and of real data in ``filter:``; with the curator 'threshold' (at least 1) nothing unsafe is kept.
    'zero_shot_safety' uses a dual encoder and words instead.

    folder, hub  exactly one: the classifier; the hub's local cache is used before the network
    unsafe       the labels that count as unsafe, as the model's config names them, case aside
    threshold    an image is unsafe where their probabilities sum to this, or more
    """

    unsafe: list[str]
    folder: str | None = None
    hub: str | None = None
    threshold: float = 0.5  # the more probable of the two
    _opened: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_threshold(self.threshold)
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give exactly one of 'folder' and 'hub'")
        if not self.unsafe:
            raise ValueError("unsafe: name at least one label of the classifier")

    def score(self, samples: Samples, tools: Tools) -> Scores:
        """(N,) 1 safe, 0 unsafe; explanations name the likeliest label. UserError for labels that it does not have."""
        require_images(samples, "scorer 'safety'")
        if self._opened is None:
            self._opened = read(self.folder, self.hub)
        found: ImageClassifier = self._opened
        known = {name.lower(): place for place, name in enumerate(found.labels)}
        lost = [name for name in self.unsafe if name.lower() not in known]
        if lost:
            raise UserError(f"the classifier has no label '{lost[0]}'", where="scorer 'safety', unsafe",
                            fix=f"It has: {', '.join(found.labels[:20])}.")
        if len(samples) == 0:
            return Scores("safety", np.zeros(0), objects([]))
        probabilities = found.probabilities(samples.content)
        unsafe = probabilities[:, sorted({known[name.lower()] for name in self.unsafe})]
        risk = unsafe.max(axis=1) if found.several else unsafe.sum(axis=1)
        return verdicts("safety", risk, np.array(found.labels, dtype=object)[probabilities.argmax(axis=1)],
                        self.threshold)

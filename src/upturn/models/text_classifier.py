"""The probability of a text's label, from a language model that was trained on texts first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from upturn.errors import UserError
from upturn.models._heads.inputs import label_array
from upturn.models._language.headed import HeadedText
from upturn.types import Batch, Draw, Likelihood, Outputs, Prompt, Samples


@dataclass(eq=False)
class TextClassifier(HeadedText):
    """log p(label | text): a linear head on a causal language model, read at EOS.

    Pre-train a causal_lm, fine-tune it on the texts, then classify from its ``folder``, as ULMFiT does (Howard & Ruder
    2018). The objective ``likelihood`` trains it to the usual cross-entropy. It reads the text of a sample, never the
    prompt, which may contain the name of the class.

    classes  number of classes; None: the largest label of the training data plus one
    """

    classes: int | None = None

    likelihood: ClassVar[Likelihood] = "exact"
    name: ClassVar[str] = "text_classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes is not None and self.classes < 2:
            raise ValueError(f"classes must be at least 2, not {self.classes}")
        self._count = self.classes or 0

    @property
    def _outputs(self) -> int:
        return self._count

    def _settings(self) -> dict[str, Any]:
        return {"classes": self._count}

    def _settle(self, settings: dict[str, Any]) -> None:
        self._count = int(settings["classes"])

    def build(self, examples: Samples, key: int) -> None:
        """Weights, head and tokenizer for this data; UserError where it has no labels or only one class."""
        self._need_text(examples)
        self._count = self.classes or int(label_array(examples).max(initial=-1)) + 1
        if self._count < 2:
            raise UserError(f"the data has {self._count} class, and a classifier needs 2", where="model",
                            fix="Use data with at least two labels.")
        super().build(_bare(examples), key)

    def encode(self, samples: Samples) -> Batch:
        """Ragged "tokens" and "mask" of the texts alone, "label" (N,) int64, -1 where unknown.

        Raises UserError for an unknown label.
        """
        labels = samples.labels
        if labels.max(initial=-1) >= self._count:
            raise UserError(f"label {labels.max()} does not fit: the model knows 0 to {self._count - 1}", where="model",
                            fix=f"State 'classes: {labels.max() + 1}', or train on every class.")
        return super().encode(_bare(samples)).with_columns(label=torch.from_numpy(labels))

    def forward(self, batch: Batch, draw: Draw | None) -> Outputs:
        """log p(label) (N, 1) nats, mask 0 where the label is unknown, logits (N, C)."""
        logits = self._read(batch)
        label = batch["label"]
        known = (label >= 0).to(logits)
        own = logits.log_softmax(dim=1).gather(1, label.clamp(min=0)[:, None])[:, 0]
        return Outputs((own * known)[:, None], known[:, None], logits=logits)


def _bare(samples: Samples) -> Samples:
    return replace(samples, prompts=(Prompt(),) * len(samples))

"""Captions with words for the quality of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upturn.config import components
from upturn.data.caption_fields import CAPTIONS, count_note, known_fields, lacks, with_captions
from upturn.errors import UserError
from upturn.protocols import Caption
from upturn.types import Samples


@dataclass(frozen=True)
class Quality(Caption):
    """Another strategy's captions with words appended for a known property of the image: ``a cat, good quality``.

    A model trained on labelled good and bad images can be prompted for good ones (as "score"
    tags in anime models, and metadata conditioning in Korbak et al., ICML 2023, "Pretraining language models with
    human preferences", section 2).

    of      the strategy that writes the captions
    by      column of the metadata, or any other field of the samples
    words   value of that field -> words; other values get none, and are counted
    levels  lowest value -> words, for numbers: those of the highest level that a value reaches
    """

    of: dict[str, Any] | str
    by: str
    words: dict[str, str] = field(default_factory=dict)
    levels: dict[float, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.words) == bool(self.levels):
            raise ValueError("give exactly one of 'words' (by value) and 'levels' (from a value on)")
        components.make("caption", self.of, "captions.of")

    @property
    def expensive(self) -> bool:
        inner: Caption = components.make("caption", self.of, "captions.of")
        return inner.expensive

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """The same words after every caption of an image. Raises UserError naming the first without the field."""
        strategy = components.make("caption", self.of, "captions.of")
        made, notes = strategy.caption(samples, classes, folder, key)
        words = [self._word(samples, row, classes) for row in range(len(samples))]
        own = made.fields.get(CAPTIONS)
        captions: Sequence[Sequence[str]] = own if own is not None else [(prompt.text,) for prompt in made.prompts]
        wordless = [row for row, word in enumerate(words) if not word]
        extended = [
            [", ".join(part for part in (text, word) if part) for text in texts]
            for texts, word in zip(captions, words, strict=True)
        ]
        return with_captions(made, extended), (*notes, *count_note(samples, wordless, f"get no words by '{self.by}'"))

    def _word(self, samples: Samples, row: int, classes: Sequence[str]) -> str:
        sample = samples[row]
        known: Mapping[str, Any] = {**sample.fields, **known_fields(sample, classes)}
        if self.by not in known:
            raise lacks(samples, row, self.by, known, "captions.by")
        value = known[self.by]
        if self.words:
            return self.words.get(str(value), "")
        try:
            number = float(value)
        except ValueError:
            raise UserError(
                f"'{self.by}' is {value!r} and no number", where="captions.levels", fix="Use 'words:' for such values."
            ) from None
        reached = [level for level in self.levels if number >= level]
        return self.levels[max(reached)] if reached else ""

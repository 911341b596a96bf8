"""One caption for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upturn.data.caption_fields import with_captions
from upturn.protocols import Caption
from upturn.types import Samples


@dataclass(frozen=True)
class Fixed(Caption):
    """The same text for every image, as for one style or one subject: ``text``."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("text is empty; the strategy 'empty' is for no caption at all")

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Samples that all have the one caption."""
        return with_captions(samples, [(self.text,)] * len(samples)), ()

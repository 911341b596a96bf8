"""Base class of caption strategies: they write the text of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from upturn.protocols.component import Component
from upturn.types import Samples


class Caption(Component):
    """Base class of caption strategies: they write the prompts' text of images; ids, labels and fields stay.

    Where an image has several captions, all are in the field "captions", (N,) tuples of text, the prompt's text first.
    """

    wants_empty: ClassVar[bool] = False
    """Whether empty captions are intended; otherwise they are counted in a note."""

    @property
    def expensive(self) -> bool:
        """Whether a model writes them, so that a plan times it."""
        return False

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Samples with captions, and notes that count what is empty or absent.

        ``folder`` is where it may keep what is expensive to compute; chance is a function of ``key`` and the image.
        """
        raise NotImplementedError

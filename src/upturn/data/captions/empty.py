"""No caption at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from upturn.data.caption_fields import with_captions
from upturn.protocols import Caption
from upturn.types import Samples


@dataclass(frozen=True)
class Empty(Caption):
    """The empty text for every image: the baseline that captions are compared with."""

    wants_empty: ClassVar[bool] = True

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Samples without a caption."""
        return with_captions(samples, [("",)] * len(samples)), ()

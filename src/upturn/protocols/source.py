"""Base class of sources: real data, split by content."""

from __future__ import annotations

from typing import ClassVar

from upturn.protocols.component import Component
from upturn.types import Kind, Splits


class Source(Component):
    """Base class of sources: real data, split by content; ``load`` refuses a layout by naming found and expected."""

    @property
    def kind(self) -> Kind:
        """The kind of content: "text", "image" or "points"."""
        raise NotImplementedError

    compares: ClassVar[bool] = False
    """Whether its samples are groups with ranks, which an objective of preferences can learn from."""

    def load(self) -> Splits:
        """Reads the data and splits it by content. Raises UserError naming what was found and what was expected."""
        raise NotImplementedError

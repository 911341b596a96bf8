"""Base class of encoders: samples to vectors."""

from __future__ import annotations

from upturn.protocols.component import Component
from upturn.protocols.component_tools import Tools
from upturn.types import Array, Samples


class Features(Component):
    """Base class of encoders: samples to vectors (N, D) float32, for metrics, deduplication and search."""

    def embed(self, samples: Samples, tools: Tools) -> Array:
        """Vectors (N, D) float32."""
        raise NotImplementedError

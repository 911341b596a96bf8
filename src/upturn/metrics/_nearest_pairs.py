"""Samples with their nearest training samples, which the report displays side by side."""

from __future__ import annotations

from collections.abc import Sequence

from upturn.types import Array, Samples


def pairs(
    generated: Samples, real: Samples, rows: Array, distances: Array, which: Sequence[int] | Array
) -> list[dict[str, object]]:
    """JSON-ready; ``rows`` and ``distances`` (N,) describe each sample's nearest real one, ``which`` to list."""
    return [
        {"sample": str(generated.ids[i]), "real": str(real.ids[rows[i]]), "distance": float(distances[i])}
        for i in which
    ]

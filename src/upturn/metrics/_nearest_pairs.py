"""Samples beside the training samples they are nearest to, for the report to show side by side."""

from __future__ import annotations

from collections.abc import Sequence

from upturn.types import Array, Samples


def pairs(
    made: Samples, real: Samples, rows: Array, distances: Array, which: Sequence[int] | Array
) -> list[dict[str, object]]:
    """JSON-ready; ``rows`` and ``distances`` (N,) are of each sample's nearest real one, ``which`` are named."""
    return [
        {"sample": str(made.ids[i]), "real": str(real.ids[rows[i]]), "distance": float(distances[i])} for i in which
    ]

"""What processes of their own do with a folder of shards; in a module that imports little: each process imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from upturn.store import shards
from upturn.store.shards import Shards

THREE = ["a", "b", "c"]


def rows(places: Sequence[int]) -> Iterator[shards.Row]:
    yield from ({"x": torch.full((1, 3), float(place))} for place in places)


def killed(folder: str, boundary: str) -> None:
    """Write three rows, and die at a boundary."""
    os.environ["UPTURN_FAULT"] = boundary
    Shards(Path(folder), "rows", {"by": "x"}).filled(THREE, rows)


def fills(folder: str, first: int, out: Any) -> None:
    """Forty rows from ``first`` on, as they are read afterwards."""
    keys = [f"key-{i}" for i in range(first, first + 40)]
    found = Shards(Path(folder), "rows", {"by": "x"}).filled(
        keys, lambda places: ({"x": torch.full((1, 3), float(int(keys[p][4:])))} for p in places))
    out.put(found["x"][torch.arange(40)][:, 0].tolist())

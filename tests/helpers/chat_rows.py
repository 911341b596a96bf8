"""Messages as rows of JSON hold them, and rows written to a file that a source reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upturn.config import components
from upturn.types import Samples, Splits, concatenate


def loaded(source: str, path: Path, rows: Sequence[dict[str, Any]] | None = None, **fields: Any) -> Splits:
    """The splits of a source over these rows, written as JSON lines; over the file as it is where none are given."""
    if rows is not None:
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found: Splits = components.make("source", {"name": source, "path": str(path), "held_out": 0.3, **fields}).load()
    return found


def whole(splits: Splits) -> Samples:
    """Both parts."""
    return concatenate([splits.train, splits.held_out])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}

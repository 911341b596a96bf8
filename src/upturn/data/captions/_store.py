"""A store of generated captions: one line of lineage, then one line per image."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upturn.errors import UserError
from upturn.store import files
from upturn.types import content_id

_IMAGE, _CAPTION = "picture", "caption"
_SHOWN = ("model", "weights", "prompt", "max_tokens", "transformers")  # of a lineage, in messages


class Store:
    """``<folder>/generated-<lineage>.jsonl``; what was written before a kill is read, an incomplete last line is not.

    ``lineage`` is all that a caption depends on besides the image, whose hash names its line. Without a folder nothing
    is kept.
    """

    def __init__(self, folder: Path | None, lineage: Mapping[str, str | int]) -> None:
        self.lineage = dict(lineage)
        name = content_id(json.dumps(self.lineage, sort_keys=True))
        self.path = None if folder is None else folder / f"generated-{name}.jsonl"
        self.known: dict[str, str] = {}
        if self.path is not None and self.path.exists():
            self.known = self._read(self.path)

    def _read(self, path: Path) -> dict[str, str]:
        head, found = _lines(path)
        if head != self.lineage:
            raise UserError("this store holds captions of another model or prompt", where=str(path), fix="Remove it.")
        return found

    def add(self, captions: Mapping[str, str]) -> None:
        """Hash of an image -> caption, on the disk when this returns."""
        self.known |= captions
        if self.path is None:
            return
        with files.disk_errors(self.path):
            files.make_folder(self.path.parent)
            fresh = not self.path.exists()
            with self.path.open("ab") as stream:
                if fresh:
                    stream.write(_line(self.lineage))
                elif not self._whole():
                    stream.write(b"\n")
                stream.write(b"".join(_line({_IMAGE: name, _CAPTION: text}) for name, text in captions.items()))
                stream.flush()
                os.fsync(stream.fileno())

    def _whole(self) -> bool:
        assert self.path is not None
        with self.path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"

    def stale(self) -> list[str]:
        """Notes on stores beside this one that the same strategy left with other settings."""
        if self.path is None or self.path.exists() or not self.path.parent.is_dir():
            return []
        notes = []
        for other in sorted(self.path.parent.glob("generated-*.jsonl")):
            head, found = _lines(other)
            changed = [f"{n} was {head.get(n)!r}" for n in _SHOWN if head.get(n) != self.lineage.get(n)]
            if head.get("model") == self.lineage.get("model"):
                notes.append(
                    f"{len(found):,} stored captions are stale ({', '.join(changed)}): they stay in {other.name}, and "
                    "new ones are generated"
                )
        return notes


def _line(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(dict(value), ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8", "surrogatepass")


def _lines(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The lineage and the captions of a store; an incomplete line is skipped: its image is captioned again."""
    rows = []
    for raw in path.read_bytes().split(b"\n"):
        try:
            rows.append(json.loads(raw.decode("utf-8", "surrogatepass")))
        except ValueError:
            continue
    head = rows[0] if rows and _IMAGE not in rows[0] else {}
    return head, {row[_IMAGE]: row[_CAPTION] for row in rows if _IMAGE in row}

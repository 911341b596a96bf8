"""Plain text files, for pre-training."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from upturn.data.sources._chunks import pieces
from upturn.data.sources._common import Rows, a_file, check_fraction, divide
from upturn.data.split import content_keys
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Array, Kind, Prompt, Splits, objects


@dataclass(frozen=True)
class Corpus(Source):
    """Text files cut into chunks; by default the Python reference that ships inside CPython.

    Whole documents are held out, never chunks of one that is trained on; a document longer than ``section`` is held
    out by sections of that size. A held-out chunk that is in train too is taken out and counted.
    Content (N,) str; empty prompts.

    paths     files, folders (searched to the bottom for ``suffixes``) or globs; none: ``pydoc_data.topics``
    length    characters of a chunk at most; cut at blank lines, else lines, else words
    section   characters of what is held out as one
    suffixes  of the files that are read in folders
    held_out  share of the documents and sections that training never sees
    """

    kind: ClassVar[Kind] = "text"

    paths: list[str] = field(default_factory=list)
    length: int = 1000
    section: int = 20_000
    suffixes: list[str] = field(default_factory=lambda: [".txt", ".md", ".rst", ".py"])
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        if self.length < 1 or self.section < self.length:
            raise ValueError(f"0 < length <= section must hold, not length {self.length}, section {self.section}")

    def load(self) -> Splits:
        """Reads all files. Raises UserError naming a file that is absent, unreadable, or not UTF-8 (with the byte)."""
        documents, notes = self._documents()
        sections = [part for text in documents for part in pieces(text, self.section)]
        section_keys = content_keys("text", sections)
        chunks: list[str] = []
        keys: list[str] = []
        for key, part in zip(section_keys, sections, strict=True):
            cut = [stripped for piece in pieces(part, self.length) if (stripped := piece.strip("\n")).strip()]
            chunks += cut
            keys += [key] * len(cut)
        if not chunks:
            raise UserError("there is no text", where=", ".join(self.paths), fix="Give files with text in them.")
        rows = Rows("text", objects(chunks), [Prompt()] * len(chunks), objects(keys))
        splits = divide(rows, self.held_out, "corpus", notes=notes)
        known = set(content_keys("text", splits.train.content))
        new = np.array([key not in known for key in content_keys("text", splits.held_out.content)], dtype=bool)
        return self._without(splits, new)

    def _without(self, splits: Splits, new: Array) -> Splits:
        if new.all():
            return splits
        if not new.any():
            raise UserError("every held-out chunk is in train too", where="corpus", fix="Give other documents.")
        note = f"{int((~new).sum()):,} of {len(new):,} held-out chunks are in train: taken out"
        return Splits(splits.train, splits.held_out.take(new), splits.classes, (*splits.notes, note))

    def _documents(self) -> tuple[list[str], list[str]]:
        if not self.paths:
            from pydoc_data.topics import topics

            return [topics[name] for name in sorted(topics)], []
        found = sorted({path for given in self.paths for path in self._files(given)})
        texts = [_read(path) for path in found]
        empty = sum(not text.strip() for text in texts)
        return texts, [f"{empty:,} of {len(texts):,} files are empty"] if empty else []

    def _files(self, given: str) -> list[Path]:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = [item for item in path.rglob("*") if item.suffix in self.suffixes and item.is_file()]
            if not inside:
                raise UserError(
                    f"no file in this folder ends in {', '.join(self.suffixes)}", where=given, fix="Set 'suffixes'."
                )
            return [a_file(str(item), "paths") for item in inside]
        if path.exists() or not glob.has_magic(given):
            return [a_file(given, "paths")]
        names = [name for name in glob.glob(os.path.expanduser(given), recursive=True) if os.path.isfile(name)]
        if not names:
            raise UserError("no file fits this pattern", where=given, fix="Fix 'paths'.")
        return [a_file(name, "paths") for name in names]


def _read(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"not UTF-8: byte {raw[error.start]:#04x} at offset {error.start:,}", where=str(path),
            fix="Save the file as UTF-8, or leave it out of 'paths'.",
        ) from error
    return text.replace("\r\n", "\n")

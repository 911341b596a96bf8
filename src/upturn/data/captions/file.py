"""Captions read from files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upturn.data.caption_fields import FILE, with_captions
from upturn.data.file_names import existing, plain_name
from upturn.data.json_lines import records
from upturn.errors import UserError
from upturn.protocols import Caption
from upturn.types import Samples


@dataclass(frozen=True)
class File(Caption):
    """One or several captions per image from ``path``: a folder of .txt, a .jsonl or a .csv.

    A folder has ``cats/1.txt`` for the image ``cats/1.png``, one caption per line. A .jsonl or .csv has the column
    file_name, the image's path inside the data's folder, and ``column``: a text, in .jsonl also a list of texts;
    several rows of one file_name are several captions.
    """

    path: str
    column: str = "caption"

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Images without a caption there get the empty one.

        Raises UserError naming file and line of what is wrong, and where no image has a caption at all.
        """
        if FILE not in samples.fields:
            raise UserError(
                "captions in files belong to images in files, and this source has none", where="captions",
                fix="Use the source 'imagefolder', or another strategy.",
            )
        path = Path(self.path).expanduser()
        files = [str(name) for name in samples.fields[FILE]]
        found = _beside(path, files) if path.is_dir() else self._table(path)
        captions = [tuple(found.get(plain_name(name), ())) for name in files]
        if not any(captions):
            there = next(iter(found), None)
            raise UserError(
                f"none of {len(files):,} images has a caption there; the images are called like '{files[0]}'"
                f"{f', the captions like {there!r}' if there else ''}", where=str(path),
                fix="Name the images by their path inside the data's folder.",
            )
        notes = []
        left = len(found.keys() - {plain_name(name) for name in files})
        if left:
            notes.append(f"captions of {left:,} images in {path.name} belong to none of the data")
        return with_captions(samples, [own or ("",) for own in captions]), tuple(notes)

    def _table(self, path: Path) -> dict[str, list[str]]:
        if not path.is_file():
            raise UserError("there is no such file or folder", where=str(path), fix="Fix 'captions.path'.")
        if path.suffix not in (".jsonl", ".csv"):
            raise UserError("a folder, a .jsonl or a .csv is expected", where=str(path), fix="Name one of those.")
        found: dict[str, list[str]] = {}
        for line, row in _rows(path):
            where = f"{path}, line {line}"
            for name in (FILE, self.column):
                if name not in row:
                    raise UserError(
                        f"column '{name}' is expected; found: {', '.join(map(str, row))}", where=where,
                        fix="Fix the line, or name the captions' column as 'captions.column'.",
                    )
            value = row[self.column]
            texts = value if isinstance(value, list) else [value]
            if not all(isinstance(text, str) for text in texts):
                raise UserError(
                    f"column '{self.column}' must hold a text or a list of texts", where=where, fix="Fix the line."
                )
            own = found.setdefault(plain_name(str(row[FILE])), [])
            own += [text.strip() for text in texts if text.strip()]
        return {name: own for name, own in found.items() if own}


def _beside(folder: Path, files: Sequence[str]) -> dict[str, list[str]]:
    found = {}
    for name in files:
        path = existing((folder / name).with_suffix(".txt"))
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n") if path.is_file() else []
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 at byte {error.start:,}", where=str(path), fix="Save it as UTF-8.") from error
        own = [line.strip() for line in lines if line.strip()]
        if own:
            found[plain_name(name)] = own
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".jsonl":
        yield from records(path)
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            for row in reader:
                yield reader.line_num, {name: value for name, value in row.items() if name is not None}
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 near byte {error.start:,}", where=str(path), fix="Save it as UTF-8.") from error
    except csv.Error as error:
        raise UserError(f"not valid CSV: {error}", where=f"{path}, line {reader.line_num}", fix="Fix it.") from error

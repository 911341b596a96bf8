"""A folder of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upturn.data.sources import _metadata
from upturn.data.sources._columns import classes_of, empty_class
from upturn.data.sources._common import Rows, a_folder, check_fraction, divide, with_own_test
from upturn.data.sources._pictures import SUFFIXES, Pictures
from upturn.data.split import content_keys
from upturn.errors import UserError
from upturn.types import Kind, Prompt, Splits

_EXPECTED = (
    "pictures with metadata.jsonl or metadata.csv (file_name and further columns), or with a .txt of the same name "
    "beside each, or in one folder a class, or pictures alone"
)
_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True)
class _Listing:
    """Pictures found in one layout: texts and classes where it has them (None where not)."""

    paths: list[Path]
    texts: list[str] | None
    labels: list[Any] | None
    names: list[str]  # how messages name each picture
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Imagefolder(Pictures):
    """A folder of pictures with metadata.jsonl or .csv, sibling .txt captions, class folders, or nothing.

    Content (N, size, size, channels) uint8. Prompts: the caption and the class where there are such; a class without
    a caption gives its name as the text. Pictures with the same pixels stand on one side.

    path     the folder, searched to the bottom; hidden files (.name) are none of it
    test     the data's own test folder; its pictures that stand in train are taken out and counted
    caption  column of the metadata that is the prompt's text; a list of words is joined by ", "
    label    column of the metadata that is the class
    held_out share of the pictures that training never sees
    """

    kind: ClassVar[Kind] = "image"

    path: str
    test: str | None = None
    caption: str | None = None
    label: str | None = None
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        self.check_pictures()

    def load(self) -> Splits:
        """Decodes all pictures. Raises UserError naming what was found and what was expected, or the broken picture."""
        train = self._listing(a_folder(self.path, "path"))
        test = self._listing(a_folder(self.test, "test")) if self.test else None
        parts = [train] if test is None else [train, test]
        index, classes = self._classes(parts)
        rows, start = [], 0
        notes = empty_class((index, classes) if index is not None else None)
        for part in parts:
            labels = None if index is None else index[start : start + len(part.paths)]
            start += len(part.paths)
            made, more = self._rows(part, labels, classes)
            rows.append(made)
            notes += [*part.notes, *more]
        source = f"imagefolder:{Path(self.path).expanduser().resolve().name}"
        if test is None:
            return divide(rows[0], self.held_out, source, classes=classes, notes=notes)
        return with_own_test(rows[0], rows[1], source, classes=classes, notes=notes)

    def _classes(self, parts: Sequence[_Listing]) -> tuple[list[int] | None, list[str]]:
        if any(part.labels is None for part in parts):
            if any(part.labels is not None for part in parts):
                raise UserError(
                    "one of the two folders has classes, the other has none", where=f"{self.path} and {self.test}",
                    fix="Lay both out alike.",
                )
            return None, []
        names = [name for part in parts for name in part.names]
        values = [label for part in parts for label in part.labels or []]
        return classes_of(values, self.label or "folder", lambda row: names[row])

    def _rows(self, part: _Listing, labels: list[int] | None, classes: Sequence[str]) -> tuple[Rows, list[str]]:
        content, readable, notes = self.decode(part.paths, part.names)
        kept = [int(row) for row in np.flatnonzero(readable)]
        if part.texts is None and labels is None:
            prompts = [Prompt()] * len(kept)
        elif part.texts is None:
            known = [Prompt(text=name, label=number) for number, name in enumerate(classes)]
            prompts = [known[labels[row]] for row in kept] if labels is not None else []
        else:
            texts = part.texts
            prompts = [Prompt(text=texts[row], label=None if labels is None else labels[row]) for row in kept]
            empty = sum(not prompt.text for prompt in prompts)
            notes += [f"{empty:,} of {len(prompts):,} captions are empty"] if empty else []
        return Rows("image", content, prompts, content_keys("image", content)), notes

    def _listing(self, folder: Path) -> _Listing:
        found = sorted(_pictures(folder))
        if not found:
            raise UserError(
                f"no picture was found ({_inside(folder)}); expected: {_EXPECTED}", where=str(folder),
                fix=f"Give another folder; pictures end in {', '.join(sorted(SUFFIXES))}.",
            )
        metadata = _metadata.read(folder)
        if metadata is not None:
            return self._with_metadata(folder, metadata, found)
        for key, column in (("caption", self.caption), ("label", self.label)):
            if column:
                raise UserError(
                    f"'{key}: {column}' names a column of the metadata, but there is none; "
                    f"found: {len(found):,} pictures, {_inside(folder)}; expected: metadata.jsonl or metadata.csv",
                    where=str(folder), fix=f"Add the metadata, or leave '{key}' out.",
                )
        texts = {path: path.with_suffix(".txt") for path in found}
        if any(text.is_file() for text in texts.values()):
            return _with_captions(found, list(texts.values()))
        return _by_folder(folder, found)

    def _with_metadata(self, folder: Path, metadata: _metadata.Metadata, found: list[Path]) -> _Listing:
        paths = [folder / row[_metadata.FILE_NAME] for row in metadata.rows]
        known = set(found)
        absent = [row for row, path in enumerate(paths) if path not in known and not path.is_file()]
        if absent:
            raise UserError(
                f"{len(absent):,} of {len(paths):,} pictures that the metadata names are absent; this line names "
                f"'{metadata.rows[absent[0]][_metadata.FILE_NAME]}'", where=metadata.where(absent[0]),
                fix="Paths count from the folder of the metadata. Mend them, or bring the pictures.",
            )
        notes = []
        extra = len(known - set(paths))
        if extra:
            notes.append(f"{extra:,} of {len(found):,} pictures stand in no row of {metadata.path.name}: left out")
        if not self.caption and metadata.columns:
            notes.append(f"no caption is used; columns found: {', '.join(metadata.columns)}")
        texts = labels = None
        if self.caption:
            values = metadata.column(self.caption, "caption")
            texts = [_caption(value, self.caption, metadata.where(row)) for row, value in enumerate(values)]
        if self.label:
            labels = metadata.column(self.label, "label")
        names = [f"{metadata.where(row)} ({path})" for row, path in enumerate(paths)]
        return _Listing(paths, texts, labels, names, notes)


def _pictures(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(
            f"this folder cannot be read ({error.strerror})", where=str(error.filename), fix="Change its permissions."
        ) from error

    walk = os.walk(folder, onerror=refuse, followlinks=True)
    every = (Path(top) / name for top, _, names in walk for name in names if not name.startswith("."))
    return [path for path in every if path.suffix.lower() in SUFFIXES]


def _inside(folder: Path) -> str:
    """What a folder holds, in words."""
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    parts = [f"{len(folders)} folders ({', '.join(folders[:3])}{', …' if len(folders) > 3 else ''})"] if folders else []
    parts += [f"{len(files)} files ({', '.join(files[:3])}{', …' if len(files) > 3 else ''})"] if files else []
    return " and ".join(parts) or "the folder is empty"


def _caption(value: Any, name: str, where: str) -> str:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return ", ".join(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(
            f"column '{name}' must hold text, here it holds {'null' if value is None else type(value).__name__}",
            where=where, fix="Name another column as 'caption', or mend the line.",
        )
    return value.strip()


def _with_captions(found: list[Path], files: list[Path]) -> _Listing:
    texts = []
    for path in files:
        try:
            texts.append(path.read_text(encoding="utf-8-sig").strip() if path.is_file() else "")
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 at byte {error.start:,}", where=str(path), fix="Save it as UTF-8.") from error
    lacking = [picture for picture, path in zip(found, files, strict=True) if not path.is_file()]
    notes = [f"{len(lacking):,} of {len(found):,} pictures have no .txt, e.g. {lacking[0].name}"] if lacking else []
    return _Listing(found, texts, None, [str(path) for path in found], notes)


def _by_folder(folder: Path, found: list[Path]) -> _Listing:
    """One folder a class; pictures that all lie in ``folder`` itself have no class."""
    names = [str(path) for path in found]
    top = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in found]
    folders = sorted(set(top) - {""})
    if not folders:
        return _Listing(found, None, None, names, [])
    loose = top.count("")
    if loose:
        raise UserError(
            f"{loose:,} pictures lie beside the folders {', '.join(folders[:3])}, so these cannot be classes; "
            f"expected: {_EXPECTED}", where=str(folder), fix="Move them, or add metadata.",
        )
    if {name.lower() for name in folders} <= _SPLIT_NAMES:
        raise UserError(
            f"the folders found ({', '.join(folders)}) are parts of the data, one folder a class is expected",
            where=str(folder), fix=f"Set 'path: {folder / folders[-1]}' and 'test:' to the other.",
        )
    return _Listing(found, None, list(top), names, [])

"""How a folder of images is laid out: metadata, a .txt beside each, one folder per class, or images alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from upturn.data.file_names import existing, plain_name
from upturn.data.images import SUFFIXES
from upturn.data.sources import _metadata
from upturn.data.sources._columns import as_field
from upturn.errors import UserError

EXPECTED = (
    "images with metadata.jsonl or metadata.csv (file_name and further columns), or with a .txt of the same name "
    "beside each, or in one folder per class, or images alone"
)
_SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True)
class Listing:
    """Images found in one layout: texts and classes where it has them (None where not)."""

    paths: list[Path]
    texts: list[str] | None
    labels: list[Any] | None
    names: list[str]  # how messages name each image
    notes: list[str]
    files: list[str]  # each image's path from the folder
    columns: Mapping[str, list[Any]] = field(default_factory=dict)  # further ones of the metadata, as read

    def take(self, rows: Sequence[int]) -> Listing:
        """These images; the notes stay."""
        def some(values: Sequence[Any] | None) -> Any:
            return None if values is None else [values[row] for row in rows]
        return replace(
            self, paths=some(self.paths), texts=some(self.texts), labels=some(self.labels), names=some(self.names),
            files=some(self.files), columns={name: some(values) for name, values in self.columns.items()},
        )


def listing(folder: Path, caption: str | None, label: str | None) -> Listing:
    """All images of a folder; ``caption`` and ``label`` name columns of its metadata.

    Raises UserError naming what was found and what was expected.
    """
    found = sorted(_image_files(folder))
    if not found:
        raise UserError(
            f"no image was found ({_inside(folder)}); expected: {EXPECTED}", where=str(folder),
            fix=f"Give another folder; images end in {', '.join(sorted(SUFFIXES))}.",
        )
    metadata = _metadata.read(folder)
    if metadata is not None:
        return _with_metadata(folder, metadata, found, caption, label)
    for key, column in (("caption", caption), ("label", label)):
        if column:
            raise UserError(
                f"'{key}: {column}' names a column of the metadata, but there is none; "
                f"found: {len(found):,} images, {_inside(folder)}; expected: metadata.jsonl or metadata.csv",
                where=str(folder), fix=f"Add the metadata, or leave '{key}' out.",
            )
    texts = {path: existing(path.with_suffix(".txt")) for path in found}
    if any(text.is_file() for text in texts.values()):
        return _with_captions(folder, found, list(texts.values()))
    return _by_folder(folder, found)


def members(value: object) -> list[str]:
    """A value of a column as text, or each of its values where it is a list."""
    return [as_field(inner) for inner in value] if isinstance(value, list) else [as_field(value)]


def as_text(value: object) -> str:
    """A value of a column as ``Prompt.fields`` holds it: a list of words joined by ", "."""
    return ", ".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else as_field(value)


def _image_files(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(
            f"this folder cannot be read ({error.strerror})", where=str(error.filename), fix="Change its permissions."
        ) from error

    walk = os.walk(folder, onerror=refuse, followlinks=True)
    every = (Path(top) / name for top, _, names in walk for name in names if not name.startswith("."))
    return [path for path in every if path.suffix.lower() in SUFFIXES]


def _inside(folder: Path) -> str:
    """A description of what a folder holds."""
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    parts = [f"{len(folders)} folders ({', '.join(folders[:3])}{', …' if len(folders) > 3 else ''})"] if folders else []
    parts += [f"{len(files)} files ({', '.join(files[:3])}{', …' if len(files) > 3 else ''})"] if files else []
    return " and ".join(parts) or "the folder is empty"


def _with_metadata(
    folder: Path, metadata: _metadata.Metadata, found: list[Path], caption: str | None, label: str | None
) -> Listing:
    exact, known = set(found), {plain_name(str(path)): path for path in found}
    paths = [folder / row[_metadata.FILE_NAME] for row in metadata.rows]
    paths = [path if path in exact else known.get(plain_name(str(path)), path) for path in paths]
    absent = [row for row, path in enumerate(paths) if path not in exact and not path.is_file()]
    if absent:
        raise UserError(
            f"{len(absent):,} of {len(paths):,} images that the metadata names are absent; this line names "
            f"'{metadata.rows[absent[0]][_metadata.FILE_NAME]}'", where=metadata.where(absent[0]),
            fix="Paths count from the folder of the metadata. Fix them, or add the images.",
        )
    notes = []
    extra = len(exact - set(paths))
    if extra:
        notes.append(f"{extra:,} of {len(found):,} images are in no row of {metadata.path.name}: left out")
    if not caption and metadata.columns:
        notes.append(f"no column is named as the caption; columns found: {', '.join(metadata.columns)}")
    texts = labels = None
    if caption:
        values = metadata.column(caption, "caption")
        texts = [_caption(value, caption, metadata.where(row)) for row, value in enumerate(values)]
    if label:
        labels = metadata.column(label, "label")
    return Listing(
        paths, texts, labels, [f"{metadata.where(row)} ({path})" for row, path in enumerate(paths)], notes,
        [str(row[_metadata.FILE_NAME]) for row in metadata.rows],
        {name: [row.get(name) for row in metadata.rows] for name in metadata.columns},
    )


def _caption(value: object, name: str, where: str) -> str:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return ", ".join(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(
            f"column '{name}' must hold text, here it holds {'null' if value is None else type(value).__name__}",
            where=where, fix="Name another column as 'caption', or fix the line.",
        )
    return value.strip()


def _relative(folder: Path, found: Sequence[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found]


def _with_captions(folder: Path, found: list[Path], files: list[Path]) -> Listing:
    texts = []
    for path in files:
        try:
            texts.append(path.read_text(encoding="utf-8-sig").strip() if path.is_file() else "")
        except UnicodeDecodeError as error:
            raise UserError(f"not UTF-8 at byte {error.start:,}", where=str(path), fix="Save it as UTF-8.") from error
    lacking = [image for image, path in zip(found, files, strict=True) if not path.is_file()]
    notes = [f"{len(lacking):,} of {len(found):,} images have no .txt, e.g. {lacking[0].name}"] if lacking else []
    return Listing(found, texts, None, [str(path) for path in found], notes, _relative(folder, found))


def _by_folder(folder: Path, found: list[Path]) -> Listing:
    """One folder a class; images that all lie in ``folder`` itself have no class."""
    names = [str(path) for path in found]
    top = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in found]
    folders = sorted(set(top) - {""})
    if not folders:
        return Listing(found, None, None, names, [], _relative(folder, found))
    loose = top.count("")
    if loose:
        raise UserError(
            f"{loose:,} images lie beside the folders {', '.join(folders[:3])}, so these cannot be classes; "
            f"expected: {EXPECTED}", where=str(folder), fix="Move them, or add metadata.",
        )
    if {name.lower() for name in folders} <= _SPLIT_NAMES:
        raise UserError(
            f"the folders found ({', '.join(folders)}) are parts of the data, one folder per class is expected",
            where=str(folder), fix=f"Set 'path: {folder / folders[-1]}' and 'test:' to the other.",
        )
    return Listing(found, None, list(top), names, [], _relative(folder, found))

"""Columns of a table -> rows of text or points; images come with their own array."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from upturn.data.sources._common import Rows, check_fraction
from upturn.data.split import content_keys, normalised
from upturn.errors import UserError
from upturn.types import Array, Kind, Prompt, content_id, objects

Place = Callable[[int], str]  # row -> where it is, for messages
_PLAIN = (str, int, float, bool)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column is what: the fields that every source of tables has.

    text        plain text without a prompt ("text" where nothing else is named)
    prompt      text of the prompt; needs ``completion`` where the content is text
    completion  text of the sample
    label       class of the prompt: names or numbers; with it the classes are all that occur, sorted
    points      list of d numbers
    fields      columns kept in ``Prompt.fields`` for verifiers and templates, never given to the model
    split_by    column whose value decides on which side a row is; by default the prompt of text, else the content
    held_out    share of the contents that training never sees
    """

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    label: str | None = None
    points: str | None = None
    fields: list[str] = field(default_factory=list)
    split_by: str | None = None
    held_out: float = 0.1

    def check_columns(self, image: str | None = None) -> None:
        """Raises ValueError where the columns named do not make one kind of content."""
        check_fraction(self.held_out)
        given = {"text": self.text, "completion": self.completion, "points": self.points, "image": image}
        contents = [name for name, column in given.items() if column]
        if len(contents) > 1:
            raise ValueError(f"only one of text, completion, points and image can be the content, not {contents}")
        if self.prompt and not contents:
            raise ValueError("prompt needs completion (or points, or image): the column of the content")
        if self.prompt and self.text:
            raise ValueError("text has no prompt: name the columns 'prompt' and 'completion'")

    def wanted(self, image: str | None = None) -> dict[str, str]:
        """field -> column, of all columns that are read; ``image`` is the column of images."""
        plain = self.text or (None if self.completion or self.points or image else "text")
        every = {"text": plain, "prompt": self.prompt, "completion": self.completion, "label": self.label}
        every |= {"points": self.points, "image": image, "split_by": self.split_by}
        found = {key: column for key, column in every.items() if column}
        return found | {f"fields.{place}": column for place, column in enumerate(self.fields)}


def check_present(wanted: Mapping[str, str], found: Sequence[str], where: str) -> None:
    """Raises UserError naming the first column that is not there, and those that are."""
    for key, name in wanted.items():
        if name not in found:
            raise UserError(
                f"column '{name}' is expected (field '{key}'); found: {', '.join(found) or 'none'}", where=where,
                fix=f"Set '{key}' to one of the columns found.",
            )


def texts(values: Sequence[Any], name: str, place: Place) -> list[str]:
    """Raises UserError naming the first row whose value is not text."""
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise UserError(
                f"column '{name}' must hold text, here it holds {named(value)}", where=place(row),
                fix="Name a column of text, or fix the row.",
            )
    return list(values)


def points(values: Sequence[Any], name: str, place: Place) -> Array:
    """(N, d) float32. Raises UserError naming the first row that is not d finite numbers."""
    width = len(values[0]) if len(values) and isinstance(values[0], (list, tuple)) else 0
    for row, value in enumerate(values):
        flat = isinstance(value, (list, tuple)) and all(isinstance(x, (int, float)) for x in value)
        if not flat or len(value) != width or not width or not np.isfinite(value).all():
            what = f"{len(value)} values" if isinstance(value, (list, tuple)) else named(value)
            raise UserError(
                f"column '{name}' must hold lists of {width or 'd'} finite numbers, here it holds {what}",
                where=place(row), fix="Name a column of points, or fix the row.",
            )
    return np.array(values, dtype=np.float32)


def named(value: object) -> str:
    """What a value is, in words."""
    return "nothing (null)" if value is None else f"a {type(value).__name__}"


def as_field(value: object) -> str:
    """A value of a kept column as the text that ``Prompt.fields`` holds; null is ""."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def classes_of(values: Sequence[Any], name: str, place: Place) -> tuple[list[int], list[str]]:
    """(class of each row, names of the classes sorted; numbers in order of size).

    Raises UserError naming the first row that has no plain value.
    """
    for row, value in enumerate(values):
        if not isinstance(value, _PLAIN) or (isinstance(value, float) and not value.is_integer()):
            raise UserError(
                f"column '{name}' must hold a name or a whole number, here it holds {named(value)}",
                where=place(row), fix="Name a column of classes, or fix the row.",
            )
    numeric = all(isinstance(value, (int, float)) for value in values)
    known = sorted(set(values)) if numeric else sorted({str(value) for value in values})
    index = {value: number for number, value in enumerate(known)}
    names = [str(int(value)) if isinstance(value, float) else str(value) for value in known]
    return [index[value if numeric else str(value)] for value in values], names


def empty_class(index: tuple[Sequence[int], Sequence[str]] | None) -> list[str]:
    """A note that counts the rows whose class has no name."""
    if index is None or "" not in index[1]:
        return []
    nameless = list(index[1]).index("")
    return [f"the class of {sum(label == nameless for label in index[0]):,} rows has an empty name"]


@dataclass(frozen=True)
class Table:
    """Columns by name, each a list of N values; ``place`` says where a row is; ``named`` are the known label names."""

    columns: Mapping[str, Sequence[Any]]
    place: Place
    named: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, kept: Array) -> Table:
        if kept.all():
            return self
        rows = [int(row) for row in np.flatnonzero(kept)]
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return Table(columns, lambda row: self.place(rows[row]), self.named)


def joined(tables: Sequence[Table]) -> Table:
    """All rows of tables with the same columns, in order."""
    ends = np.cumsum([len(table) for table in tables])

    def place(row: int) -> str:
        which = int(np.searchsorted(ends, row, side="right"))
        return tables[which].place(row - int(ends[which] - len(tables[which])))

    names = tables[0].columns
    return Table({name: [v for t in tables for v in t.columns[name]] for name in names}, place, tables[0].named)


def rows_of(
    table: Table, spec: Columns, images: Array | None = None, index: tuple[Sequence[int], Sequence[str]] | None = None
) -> tuple[Rows, list[str]]:
    """Rows of the content that ``spec`` names (or of ``images``, (N, H, W, C)), and notes that count the empty ones.

    ``index`` are the classes over train and test together.
    """
    kind: Kind = "image" if images is not None else "points" if spec.points else "text"
    columns, place = table.columns, table.place
    content: Array
    if images is not None:
        content = images
    elif spec.points:
        content = points(columns[spec.points], spec.points, place)
    else:
        name = spec.completion or spec.text or "text"
        content = objects(texts(columns[name], name, place))
    prompts = _prompts(table, spec, index)
    keys = _keys(kind, table, spec, content, prompts)
    rows = Rows(kind, content, prompts, keys)
    if kind != "text":
        return rows, []
    full = np.array([bool(text.strip()) for text in content], dtype=bool)
    if full.all():
        return rows, []
    if not full.any():
        raise UserError("the text of every row is empty", where=place(0), fix="Name another column, or other data.")
    first = place(int(np.flatnonzero(~full)[0]))
    note = f"{int((~full).sum()):,} of {len(full):,} rows have no text, left out, the first at {first}"
    kept = np.flatnonzero(full)
    return Rows(kind, content[kept], [prompts[row] for row in kept], keys[kept]), [note]


def _prompts(table: Table, spec: Columns, index: tuple[Sequence[int], Sequence[str]] | None) -> list[Prompt]:
    n, columns = len(table), table.columns
    prompts = texts(columns[spec.prompt], spec.prompt, table.place) if spec.prompt else None
    labels = index[0] if index is not None else None
    names = index[1] if index is not None else ()
    if prompts is None and not spec.fields:  # one object a class: there may be millions of rows
        if labels is None:
            return [Prompt()] * n
        each = [Prompt(text=name, label=number) for number, name in enumerate(names)]
        return [each[label] for label in labels]
    kept = [{name: as_field(columns[name][row]) for name in spec.fields} for row in range(n)]
    words = prompts if prompts is not None else [names[label] for label in labels] if labels is not None else [""] * n
    return [Prompt(words[row], None if labels is None else int(labels[row]), kept[row]) for row in range(n)]


def _keys(kind: Kind, table: Table, spec: Columns, content: Array, prompts: Sequence[Prompt]) -> Array:
    if spec.split_by:
        return objects([content_id(normalised(as_field(value))) for value in table.columns[spec.split_by]])
    if kind == "text" and spec.prompt:
        return content_keys("text", [prompt.text or text for prompt, text in zip(prompts, content, strict=True)])
    return content_keys(kind, content)

"""Columns of a table -> rows of text or points; images come with their own array."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from upturn.data.sources import _text_layouts
from upturn.data.sources._common import Rows, check_fraction
from upturn.data.sources._text_layouts import FURTHER, recognized
from upturn.data.split import content_keys, normalised
from upturn.errors import UserError
from upturn.types import Array, Kind, Prompt, content_id, objects

Place = Callable[[int], str]  # row -> where it is, for messages
_PLAIN = (str, int, float, bool)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column is what: the fields that every source of tables has.

    Where none names the content, the columns of the data decide: ``messages`` (or ``conversations``), ``instruction``
    and ``output``, ``prompt`` and ``completion`` (or ``response``), ``text``, ``prompt`` alone, in this order; a note
    names it.

    messages    conversations: lists of {role, content}, or of {from, value} as in ShareGPT; what comes before the first
                answer is the prompt, the rest is the completion
    tools       tools that a conversation offers: their descriptions, or JSON text of them ("tools", where there is one)
    system      the system message of a conversation, or of an instruction ("system", where there is one)
    instruction what the user asks, as in Alpaca; needs ``output``; becomes a conversation
    input       what belongs to the instruction, in the next line ("input", where there is one)
    output      the answer to the instruction
    history     earlier turns of an instruction, pairs of texts ("history", where there is one)
    text        plain text without a prompt
    prompt      text of the prompt, or its messages; without ``completion`` there are prompts alone, to sample from
    completion  text of the sample, or its messages
    rendered    texts in which a chat template is written out (<|im_start|>, [INST], …) are read as its messages
    label       class of the prompt: names or numbers; with it the classes are all that occur, sorted
    points      list of d numbers
    fields      columns kept in ``Prompt.fields`` for verifiers and templates, never given to the model
    split_by    column whose value decides on which side a row is; by default the prompt of text, else the content
    held_out    share of the contents that training never sees
    """

    messages: str | None = None
    tools: str | None = None
    system: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    history: str | None = None
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    rendered: bool = False
    label: str | None = None
    points: str | None = None
    fields: list[str] = field(default_factory=list)
    split_by: str | None = None
    held_out: float = 0.1

    def check_columns(self, image: str | None = None) -> None:
        """Raises ValueError where the columns named do not make one kind of content."""
        check_fraction(self.held_out)
        given = {"messages": self.messages, "instruction": self.instruction, "text": self.text}
        given |= {"completion": self.completion, "points": self.points, "image": image}
        contents = [name for name, column in given.items() if column]
        if len(contents) > 1:
            raise ValueError(f"only one of {', '.join(given)} can be the content, not {contents}")
        if self.prompt and self.text:
            raise ValueError("text has no prompt: name the columns 'prompt' and 'completion'")
        if self.prompt and (self.messages or self.instruction):
            raise ValueError(f"{contents[0]} holds the prompt itself: leave 'prompt' out")
        if bool(self.instruction) != bool(self.output):
            raise ValueError("instruction and output are named together: the column of the question, and of the answer")

    def settled(
        self, found: Sequence[str], where: str, image: str | None = None, possible: Sequence[str] = ()
    ) -> Self:
        """With the columns that the data has, where the recipe does not name the content.

        ``found`` are the columns of the data, ``possible`` those that further rows may have. UserError where they are
        no layout that is known.
        """
        named = (
            self.messages or self.instruction or self.text or self.completion or self.prompt or self.points or image
        )
        layout: dict[str, Any] = {}
        if not named:
            layout = {"text": "text"} if self.label and "text" in found else recognized(found, where)
        every = {**vars(self), **layout}
        for content, keys in FURTHER.items():
            if every[content]:
                layout |= {key: key for key in keys if not every[key] and key in (*found, *possible)}
        return replace(self, **layout)

    def wanted(self, image: str | None = None) -> dict[str, str]:
        """field -> column, of all columns that are read; ``image`` is the column of images."""
        every = {name: getattr(self, name) for name in (*_TEXT, "label", "points", "split_by")} | {"image": image}
        found = {key: column for key, column in every.items() if column}
        return found | {f"fields.{place}": column for place, column in enumerate(self.fields)}

    @property
    def layout(self) -> str:
        """How rows of text are written, "" for points and images."""
        if self.messages or self.instruction or self.text:
            return "messages" if self.messages else "alpaca" if self.instruction else "text"
        if self.prompt and not self.points:
            return "prompt and completion" if self.completion else "prompt"
        return "text" if self.completion else ""

    @property
    def of_text(self) -> dict[str, str]:
        """field -> column, of those that make the content where it is text."""
        return {name: column for name in _TEXT if (column := getattr(self, name))}


OPTIONAL = ("tools", "system", "input", "history")  # fields whose column a row may lack
_TEXT = ("messages", "instruction", "input", "output", "history", "tools", "system", "text", "prompt", "completion")


def check_present(wanted: Mapping[str, str], found: Sequence[str], where: str) -> None:
    """Raises UserError naming the first column that is not there, and those that are."""
    for key, name in wanted.items():
        if name not in found:
            raise UserError(
                f"column '{name}' is expected (field '{key}'); found: {', '.join(found) or 'none'}", where=where,
                fix=f"Set '{key}' to one of the columns found.",
            )


def check_optional(spec: Columns, table: Table) -> None:
    """Raises UserError where a column that the recipe names for a field of ``OPTIONAL`` is in no row."""
    for key in OPTIONAL:
        name = getattr(spec, key)
        if name and all(value is None for value in table.columns[name]):
            raise UserError(
                f"column '{name}' is expected (field '{key}'), and no row has it", where=table.place(0),
                fix=f"Fix '{key}', or leave it out.",
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
    table: Table, spec: Columns, images: Array | None = None, index: tuple[Sequence[int], Sequence[str]] | None = None,
    described: bool = True,
) -> tuple[Rows, list[str]]:
    """Rows of the content that ``spec`` names (or of ``images``, (N, H, W, C)), and notes that count those left out.

    ``index`` are the classes over train and test together. The notes say which layout of text was read where
    ``described``.
    """
    kind: Kind = "image" if images is not None else "points" if spec.points else "text"
    columns, place = table.columns, table.place
    if kind != "text":
        content = images if images is not None else points(columns[str(spec.points)], str(spec.points), place)
        words = texts(columns[spec.prompt], spec.prompt, place) if spec.prompt else None
        prompts = _prompts(table, spec, index, words)
        return Rows(kind, content, prompts, _keys(kind, table, spec, content, prompts)), []
    read = _text_layouts.read(columns, spec.of_text, spec.rendered, place)
    content = objects(read.contents)
    whole = any(read.chats)
    prompts = _prompts(table, spec, index, read.prompts if spec.prompt or whole else None)
    if whole:
        known: dict[Prompt, Prompt] = {}
        given = zip(prompts, read.chats, read.tools, strict=True)
        prompts = [replace(p, messages=chat, tools=tools) if chat else p for p, chat, tools in given]
        prompts = [known.setdefault(prompt, prompt) for prompt in prompts] if not spec.fields else prompts
    keys = _keys(kind, table, spec, content, prompts, bool(spec.prompt) or whole)
    kept, notes = _text_layouts.left_out(read.faults, place)
    notes = [*(read.notes if described else ()), *notes]
    rows = Rows(kind, content, prompts, keys, read.fields)
    return (rows if kept.all() else rows.take(kept)), notes


def _prompts(
    table: Table, spec: Columns, index: tuple[Sequence[int], Sequence[str]] | None, prompts: Sequence[str] | None
) -> list[Prompt]:
    n, columns = len(table), table.columns
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


def _keys(
    kind: Kind, table: Table, spec: Columns, content: Array, prompts: Sequence[Prompt], by_prompt: bool = False
) -> Array:
    if spec.split_by:
        return objects([content_id(normalised(as_field(value))) for value in table.columns[spec.split_by]])
    if by_prompt:
        return content_keys("text", [prompt.text or text for prompt, text in zip(prompts, content, strict=True)])
    return content_keys(kind, content)

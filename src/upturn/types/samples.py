"""Prompts, samples and mixtures: all frozen, all columnar where there are many.

Shapes: N samples (rows). A sample's content is text (``str``), an image (``(H, W, C) uint8``) or a point
(``(d,) float32``). Images of several sizes are objects, one per image: ``pictures`` builds such a column, ``by_size``
goes through it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from upturn.types.conversations import COMPLETION_MESSAGES, Messages, to_json

Array = npt.NDArray[Any]
Kind = Literal["text", "image", "points"]
REAL, SYNTHETIC = "real", "synthetic"


def content_id(*parts: object) -> str:
    """16 hexadecimal digits that name these parts: equal content has an equal id, on any machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):  # nearly all there are
            raw = part.encode("utf-8", "surrogatepass")  # JSON may hold half a pair
        elif isinstance(part, np.ndarray):
            raw = str(part.dtype).encode() + str(part.shape).encode() + np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            raw = part
        else:
            raw = str(part).encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


@dataclass(frozen=True)
class Prompt:
    """What goes into a model: a text, a conversation, a class, a text and a class, or nothing (unconditional).

    ``fields`` carries what scorers and templates need and the model never sees, e.g. the answer. Where there are
    ``messages``, a language model reads them through its chat template, with ``tools`` (JSON, "" for none); ``text`` is
    then their plain text, which scorers, votes and reports read.
    """

    text: str = ""
    label: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    messages: Messages = ()
    tools: str = ""

    @cached_property
    def id(self) -> str:
        chat = (to_json(self.messages), self.tools) if self.messages else ()
        return content_id(self.text, self.label, json.dumps(dict(self.fields), sort_keys=True), *chat)


@dataclass(frozen=True)
class Sample:
    """One row of :class:`Samples`."""

    id: str
    prompt: Prompt
    content: Any
    origin: str
    source: str
    group: int
    candidate: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Samples:
    """N samples in columns.

    kind       what the content is
    ids        (N,) str objects; ``content_id`` of source and content (real) or of model and key (synthetic)
    prompts    N prompts (the same object may be in many rows)
    content    (N, d) float32 | (N, H, W, C) uint8 | (N,) objects (H, W, C) uint8 of several sizes | (N,) str objects
    origin     (N,) "real" or "synthetic"
    source     (N,) the source's name, or the id of the model that generated it
    group      (N,) int64: rows with one number are candidates of one prompt occurrence
    candidate  (N,) int64: which of the K
    fields     further columns, each (N,): "quality", "key", "finish", …
    """

    kind: Kind
    ids: Array
    prompts: tuple[Prompt, ...]
    content: Array
    origin: Array
    source: Array
    group: Array
    candidate: Array
    fields: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.prompts)
        columns = {"ids": self.ids, "content": self.content, "origin": self.origin, "source": self.source}
        columns |= {"group": self.group, "candidate": self.candidate, **self.fields}
        wrong = {name: len(column) for name, column in columns.items() if len(column) != n}
        if wrong:
            raise ValueError(f"{n} prompts, but columns of other lengths: {wrong}")

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, row: int) -> Sample:
        extra = {name: column[row] for name, column in self.fields.items()}
        return Sample(
            str(self.ids[row]), self.prompts[row], self.content[row], str(self.origin[row]), str(self.source[row]),
            int(self.group[row]), int(self.candidate[row]), extra,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))

    @property
    def labels(self) -> Array:
        """(N,) int64 class of each prompt, -1 where it has none."""
        return np.array([-1 if p.label is None else p.label for p in self.prompts], dtype=np.int64)

    def take(self, rows: Array | Sequence[int]) -> Samples:
        """The rows named, in that order; a boolean mask keeps where it is true."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return Samples(
            self.kind, self.ids[rows], tuple(self.prompts[i] for i in rows), self.content[rows], self.origin[rows],
            self.source[rows], self.group[rows], self.candidate[rows],
            {name: column[rows] for name, column in self.fields.items()},
        )

    def with_fields(self, **columns: Array) -> Samples:
        """The same samples with further fields, (N,) each."""
        return replace(self, fields={**self.fields, **columns})


def objects(values: Sequence[Any] | Array) -> Array:
    """(N,) object array whatever the values are (numpy would make nested sequences into matrices)."""
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return out


def pictures(rows: Sequence[Array]) -> Array:
    """Content of images: (N, H, W, C) where all are of one size, else (N,) objects (H, W, C)."""
    if len(rows) and len({row.shape for row in rows}) == 1:
        return np.stack(list(rows))
    return _each(rows)


def _each(rows: Sequence[Array]) -> Array:
    """(N,) objects, one an image: numpy would take equal ones apart."""
    out = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out


def by_size(content: Array) -> Iterator[tuple[Array, Array]]:
    """Images grouped by size: (n,) int64 rows, and (n, H, W, C) uint8."""
    if content.dtype != object:
        yield np.arange(len(content)), content
        return
    sizes: dict[tuple[int, ...], list[int]] = {}
    for row, picture in enumerate(content):
        sizes.setdefault(picture.shape, []).append(row)
    for rows in sizes.values():
        yield np.array(rows, dtype=np.int64), np.stack([content[row] for row in rows])


def joined_content(kind: Kind, parts: Sequence[Array]) -> Array:
    """One after the other; images of several sizes become objects."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if kind != "image" or len({(part.dtype, part.shape[1:]) for part in parts}) == 1:
        return np.concatenate(parts)
    return _each([picture for part in parts for picture in part])


def real_samples(
    kind: Kind, content: Array | Sequence[Any], prompts: Sequence[Prompt], source: str,
    fields: Mapping[str, Array] | None = None,
) -> Samples:
    """Samples of a source: ids from the source's name, the prompt and the content (its messages, too)."""
    body = objects(content) if kind == "text" else np.asarray(content)
    n = len(prompts)
    turns = (fields or {}).get(COMPLETION_MESSAGES, [""] * n)
    each = zip(prompts, body, turns, strict=True)
    ids = objects([content_id(source, prompt.id, row, *([turn] if turn else [])) for prompt, row, turn in each])
    return Samples(
        kind, ids, tuple(prompts), body, objects([REAL] * n), objects([source] * n),
        np.arange(n), np.zeros(n, dtype=np.int64), dict(fields or {}),
    )


def synthetic_samples(
    kind: Kind, content: Array | Sequence[Any], prompts: Sequence[Prompt], keys: Array, model: str,
    fields: Mapping[str, Array] | None = None,
) -> Samples:
    """Samples of a model for P prompts and ``keys`` (P, K): P * K rows, prompt-major.

    ``content`` has P * K rows in the same order; ids come from the model's id and the keys.
    """
    count, candidates = keys.shape
    body = objects(content) if kind == "text" else np.asarray(content)
    flat = keys.reshape(-1)
    every = tuple(prompt for prompt in prompts for _ in range(candidates))
    ids = objects([content_id(model, prompt.id, int(key)) for prompt, key in zip(every, flat, strict=True)])
    n = count * candidates
    return Samples(
        kind, ids, every, body, objects([SYNTHETIC] * n), objects([model] * n),
        np.repeat(np.arange(count), candidates), np.tile(np.arange(candidates), count),
        {"key": flat, **(fields or {})},
    )


def concatenate(parts: Sequence[Samples]) -> Samples:
    """All rows, in order, groups renumbered so that they stay apart; only the fields that all parts have.

    The messages of completions are kept where only some parts have them.
    """
    if any(COMPLETION_MESSAGES in part.fields for part in parts):
        parts = [
            part.with_fields(**{COMPLETION_MESSAGES: part.fields.get(COMPLETION_MESSAGES, objects([""] * len(part)))})
            for part in parts
        ]
    shared = set.intersection(*(set(part.fields) for part in parts))
    offsets, start = [], 0
    for part in parts:
        offsets.append(part.group + start)
        start += int(part.group.max(initial=-1)) + 1
    def join(column: str) -> Array:
        return np.concatenate([getattr(part, column) for part in parts])
    return Samples(
        parts[0].kind, join("ids"), tuple(p for part in parts for p in part.prompts),
        joined_content(parts[0].kind, [part.content for part in parts]),
        join("origin"), join("source"), np.concatenate(offsets), join("candidate"),
        {name: np.concatenate([part.fields[name] for part in parts]) for name in sorted(shared)},
    )


@dataclass(frozen=True)
class Splits:
    """What a source gives: ``train``, and ``held_out`` that no training ever sees, split by content."""

    train: Samples
    held_out: Samples
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was skipped and why, with counts; always printed
    layout: str = ""  # how the rows are written ("messages", "alpaca", …), where a source recognizes it


# The mixing policies of the literature that the theory describes.
MixingCase = Literal["replace", "accumulate", "accumulate_subsample", "fresh"]


@dataclass(frozen=True)
class Mixture:
    """Exactly what is trained on: rows of ``samples`` with a weight each."""

    samples: Samples
    weights: Array  # (N,) float64

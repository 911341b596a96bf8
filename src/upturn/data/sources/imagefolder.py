"""A folder of images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from upturn.config import components
from upturn.data.images import ImageOptions
from upturn.data.sources import _split_groups
from upturn.data.sources._buckets import Buckets, describe
from upturn.data.sources._columns import classes_of, empty_class
from upturn.data.sources._common import Rows, a_folder, check_fraction, divide, with_own_test
from upturn.data.sources._layouts import Listing, as_text, listing
from upturn.data.split import content_keys
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Array, Kind, Prompt, Splits, objects

FILE, CONCEPT = "file_name", "concept"
# fields of samples that the loop writes itself: a column of that name is in the prompt's fields alone
_TAKEN = frozenset({FILE, CONCEPT, "split", "captions", "key", "rank", "score", "strength"})


@dataclass(frozen=True, kw_only=True)
class Imagefolder(ImageOptions, Source):
    """A folder of images with metadata.jsonl or .csv, sibling .txt captions, class folders, or nothing.

    Content (N, size, size, channels) uint8, or with ``buckets`` of several sizes. Prompts: the caption and the
    class where there are such; a class without a caption gives its name as the text. Images with the same pixels
    are on one side. All columns of the metadata are fields of the prompt (text; a list joined by ", "), for
    captions and scorers, and of the sample, for ``where:``.

    path      the folder, searched to the bottom; hidden files (.name) are none of it
    test      the data's own test folder; its images that are in train are taken out and counted
    caption   column of the metadata that is the prompt's text; a list of words is joined by ", "
    label     column of the metadata that is the class
    leave_out column -> values: images that have one are none of the data; they are counted
    held_out  share of the images that training never sees; with ``together`` the share of groups
    together  column whose variants are on one side: names that differ in skin tone, gender or case alone
    variants  regular expressions instead of that rule: what they match in a name makes no difference
    hold_out  column -> values: concepts that are held out on purpose, with their variants; the field "concept" of a
              sample is the value that it was held out for, "" elsewhere
    buckets   images keep about their shape: {step: 64, at_most: 2.0} cuts each to the nearest of the sizes that
              ``Buckets`` makes, of about the area of ``size`` squared. text_to_image learns from such images; what
              cannot take images of several sizes is refused by name when the recipe is read
    """

    kind: ClassVar[Kind] = "image"

    path: str
    test: str | None = None
    caption: str | None = None
    label: str | None = None
    leave_out: dict[str, list[str]] = field(default_factory=dict)
    held_out: float = 0.1
    together: str | None = None
    variants: list[str] | None = None
    hold_out: dict[str, list[str]] = field(default_factory=dict)
    buckets: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        self.check_image_options()
        if self._buckets is not None:
            self._buckets.sizes(self.size)
        if self.variants is not None and self.together is None:
            raise ValueError("variants says what makes no difference in the column that 'together' names: name one")
        for pattern in self.variants or ():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"variants: {pattern!r} is no regular expression: {error}") from error
        if self.test is not None and (self.together is not None or self.hold_out):
            raise ValueError("the data's own test folder decides what is held out: leave out 'together' and 'hold_out'")

    @cached_property
    def _buckets(self) -> Buckets | None:
        if self.buckets is None:
            return None
        made: Buckets = components.checked(Buckets, self.buckets, "data.buckets", "buckets")
        return made

    @property
    def several_sizes(self) -> bool:
        """Whether images may differ in size."""
        return self.buckets is not None

    def empty_array(self, count: int) -> Array:
        return super().empty_array(count) if self._buckets is None else np.empty(count, dtype=object)

    def shape_of(self, width: int, height: int) -> tuple[int, int]:
        if self._buckets is None:
            return super().shape_of(width, height)
        return self._buckets.nearest(width, height, self.size)

    def notes_on(self, content: Array, given: Array) -> list[str]:
        return [] if self._buckets is None else [describe(content, given)]

    def load(self) -> Splits:
        """Decodes all images. Raises UserError naming what was found and what was expected, or the broken image."""
        parts = [listing(a_folder(self.path, "path"), self.caption, self.label)]
        if self.test:
            parts.append(listing(a_folder(self.test, "test"), self.caption, self.label))
        parts = self._left(parts)
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
        if len(rows) == 2:
            return with_own_test(rows[0], rows[1], source, classes=classes, notes=notes)
        return self._divided(rows[0], source, classes, notes)

    def _divided(self, rows: Rows, source: str, classes: Sequence[str], notes: Sequence[str]) -> Splits:
        concepts = rows.fields.get(CONCEPT)
        chosen = rows.keys[concepts != ""] if concepts is not None else ()
        splits = divide(rows, self.held_out, source, classes=classes, notes=notes, chosen=chosen)
        if concepts is not None:
            splits = replace(splits, notes=(*splits.notes, _split_groups.concept_note(concepts.tolist())))
        if (self.together is None and concepts is None) or not classes:
            return splits
        return replace(splits, notes=(
            *splits.notes, _split_groups.class_note(classes, splits.train.labels, splits.held_out.labels)
        ))

    def _left(self, parts: Sequence[Listing]) -> list[Listing]:
        if not self.leave_out:
            return list(parts)
        found = []
        for part in parts:
            why = _split_groups.wanted_rows(part.columns, self.leave_out, "leave_out")
            kept = [row for row, value in enumerate(why) if not value]
            gone = len(why) - len(kept)
            if not kept:
                raise UserError("leave_out leaves no image", where="leave_out", fix="Name fewer values.")
            found.append(replace(part.take(kept), notes=[
                *part.notes, f"{gone:,} of {len(why):,} images are left out by {', '.join(self.leave_out)}"
            ]))
        return found

    def _classes(self, parts: Sequence[Listing]) -> tuple[list[int] | None, list[str]]:
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

    def _rows(self, part: Listing, labels: list[int] | None, classes: Sequence[str]) -> tuple[Rows, list[str]]:
        content, readable, notes = self.decode(part.paths, part.names)
        kept = [int(row) for row in np.flatnonzero(readable)]
        part = part.take(kept)
        own = None if labels is None else [labels[row] for row in kept]
        prompts = _prompts(part, own, classes)
        if part.texts is not None:
            empty = sum(not text for text in part.texts)
            notes += [f"{empty:,} of {len(prompts):,} captions are empty"] if empty else []
        keys, fields = content_keys("image", content), _fields(part)
        if self.together is not None:
            keys, note = _split_groups.joined_keys(keys, self._named(part), self.variants)
            notes.append(note)
        if self.hold_out:
            concepts = _split_groups.wanted_rows(part.columns, self.hold_out, "hold_out")
            fields[CONCEPT] = objects(_split_groups.spread(keys, concepts))
        return Rows("image", content, prompts, keys, fields), notes

    def _named(self, part: Listing) -> list[Any]:
        if self.together is None or self.together not in part.columns:
            raise UserError(
                f"column '{self.together}' is expected (field 'together'); found: {', '.join(part.columns) or 'none'}",
                where=str(self.path), fix="Name one of the columns found, or leave 'together' out.",
            )
        return part.columns[self.together]


def _prompts(part: Listing, labels: list[int] | None, classes: Sequence[str]) -> list[Prompt]:
    """One object a class where that is all there is: there may be very many images."""
    n = len(part.paths)
    if not part.columns and part.texts is None:
        if labels is None:
            return [Prompt()] * n
        known = [Prompt(text=name, label=number) for number, name in enumerate(classes)]
        return [known[label] for label in labels]
    texts = part.texts or ([""] * n if labels is None else [classes[label] for label in labels])
    columns = {name: [as_text(value) for value in values] for name, values in part.columns.items()}
    fields = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [{}] * n
    return [Prompt(texts[row], None if labels is None else labels[row], fields[row]) for row in range(n)]


def _fields(part: Listing) -> dict[str, Array]:
    columns = {name: values for name, values in part.columns.items() if name not in _TAKEN}
    texts = {name: objects([as_text(value) for value in values]) for name, values in columns.items()}
    return {FILE: objects(part.files)} | texts

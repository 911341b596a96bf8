"""From tables to Splits: shared by jsonl, parquet and hub."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from upturn.data.images import ImageOptions
from upturn.data.sources._columns import Columns, Table, classes_of, empty_class, joined, named, rows_of
from upturn.data.sources._common import divide, with_own_test
from upturn.errors import UserError
from upturn.types import Array, Splits


def splits(train: Table, test: Table | None, spec: Columns, source: str, image: str | None = None) -> Splits:
    """Splits of a table, or of two where the data brings its own test part.

    Raises UserError naming the row for a value of the wrong type or an image that cannot be read.
    """
    if not len(train) or (test is not None and not len(test)):
        which = "train" if not len(train) else "test"
        raise UserError(f"the {which} part has no rows", where=source, fix="Give data with rows in it.")
    whole = train if test is None else joined([train, test])
    border = len(train)
    images: Array | None = None
    notes: list[str] = []
    if image is not None and isinstance(spec, ImageOptions):
        images, readable, notes = _decoded(whole, image, spec)
        whole, border = whole.take(readable), int(readable[:border].sum())
    index = classes_of(whole.columns[spec.label], spec.label, whole.place) if spec.label else None
    index = _renamed(index, whole)
    classes = index[1] if index else ()
    notes = [*notes, *empty_class(index)]
    first = np.arange(len(whole)) < border

    def part(mask: Array, described: bool = False) -> tuple[Any, list[str]]:
        own = None if index is None else ([index[0][row] for row in np.flatnonzero(mask)], index[1])
        return rows_of(whole.take(mask), spec, None if images is None else images[mask], own, described)

    rows, more = part(first, described=True)
    if test is None:
        found = divide(rows, spec.held_out, source, classes=classes, notes=(*notes, *more))
    else:
        held, others = part(~first)
        found = with_own_test(rows, held, source, classes=classes, notes=(*notes, *more, *others))
    return replace(found, layout=spec.layout)


def _renamed(index: tuple[list[int], list[str]] | None, table: Table) -> tuple[list[int], list[str]] | None:
    """Classes under the names that the data set itself gives their numbers."""
    if index is None or not table.named:
        return index
    numbers = [int(index[1][label]) for label in index[0]]
    for row, number in enumerate(numbers):
        if not 0 <= number < len(table.named):
            raise UserError(
                f"class {number} has no name, there are {len(table.named)} (often -1 means 'not labelled')",
                where=table.place(row), fix="Use a split that is labelled, or leave 'label' out.",
            )
    return numbers, list(table.named)


def _decoded(table: Table, image: str, spec: ImageOptions) -> tuple[Array, Array, list[str]]:
    given: list[bytes] = []
    for row, value in enumerate(table.columns[image]):
        raw = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(raw, bytes):
            path = value.get("path") if isinstance(value, dict) else None
            found = f"a path only ({path!r})" if path else named(raw)
            raise UserError(
                f"column '{image}' must hold the bytes of images, here it holds {found}", where=table.place(row),
                fix="Name a column of images; for files beside a table use the source 'imagefolder'.",
            )
        given.append(raw)
    return spec.decode(given, [table.place(row) for row in range(len(given))])

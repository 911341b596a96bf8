"""What the steps of a round keep, one Parquet file each: samples, scores, selections and the mixture trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from upturn.errors import UserError
from upturn.store.columns import (
    fields_of,
    further_of,
    numbers,
    prompts_of,
    read_batches,
    read_table,
    to_samples,
    to_table,
    with_notes,
    write_table,
)
from upturn.types import Array, Mixture, Samples, Scores, Selection, concatenate, objects

if TYPE_CHECKING:
    import pyarrow as pa

    from upturn.store.run import Run

T = TypeVar("T")
SAMPLES, SCORES, SELECTIONS, MIXTURE = "samples.parquet", "scores.parquet", "selections.parquet", "mixture.parquet"
EVALUATION = "evaluation.parquet"  # the first evaluation of a unit; others carry their names
__all__ = ["iterate_samples", "prompts_of", "read_mixture", "read_samples", "read_scores", "read_selections",
           "write_mixture", "write_samples", "write_scores", "write_selections"]


def write_samples(path: Path, samples: Samples) -> None:
    """All of the samples, so that ``read_samples`` gives them back bit for bit.

    Columns: id, prompt, label, prompt_fields (JSON), text | image (PNG) | point, origin, source, group, candidate, then
    the further fields. ``datasets.load_dataset("parquet", data_files=…)`` decodes the images.
    """
    write_table(path, to_table(samples))


def read_samples(path: Path) -> Samples:
    """The samples written there; UserError naming the file where it cannot be read."""
    return _understood(path, lambda: to_samples(read_table(path)))


def iterate_samples(path: Path, rows: int) -> Iterator[Samples]:
    """The same, some rows at a time: memory does not grow with the file."""
    import pyarrow as pa

    for batch in read_batches(path, rows):
        yield _understood(path, lambda batch=batch: to_samples(pa.Table.from_batches([batch])))  # type: ignore[misc]


def _understood(path: Path, read: Callable[[], T]) -> T:
    """What ``read`` gives; a Parquet file of another program, or one with a damaged image, is one clear message."""
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"this is no table of upturn, or it is damaged: {error}", where=str(path)) from error


def write_scores(path: Path, samples: Samples, scores: Sequence[Scores]) -> None:
    """One row a scorer and sample: sample_id, scorer, value (null where unscored), unscored, explanation."""
    import pyarrow as pa

    n, names = len(samples), [item.scorer for item in scores]
    if len(set(names)) != len(names):
        raise ValueError(f"two scorers have one name: {names}")
    values = _stack([item.values for item in scores], n, np.float64)
    explained = [item.explanations.tolist() if item.explanations is not None else [None] * n for item in scores]
    table = pa.table({
        "sample_id": pa.array(samples.ids.tolist() * len(scores), pa.string()),
        "scorer": pa.array(np.repeat(objects(names), n).tolist(), pa.string()),
        "value": pa.array(values, mask=np.isnan(values)),
        "unscored": pa.array(np.isnan(values)),
        "explanation": pa.array([text for column in explained for text in column], pa.string()),
    })
    unexplained = [item.scorer for item in scores if item.explanations is None]
    write_table(path, with_notes(table, {"rows": n, "scorers": names, "unexplained": unexplained}))


def _stack(columns: Sequence[Array], n: int, dtype: type) -> Array:
    for column in columns:
        if len(column) != n:
            raise ValueError(f"{n} samples, but a column of {len(column)}")
    return np.concatenate([np.empty(0, dtype), *(np.asarray(column, dtype) for column in columns)])


def read_scores(path: Path, ids: Array | Sequence[str] | None = None) -> dict[str, Scores]:
    """Scorer -> scores, in the order of ``ids`` (as written where none are given); NaN where a sample has no score."""
    table = read_table(path)

    def read() -> dict[str, Scores]:
        out: dict[str, Scores] = {}
        for name, block, rows in _blocks(table, "scorers", ids):
            values = np.array(block.column("value").to_numpy(), dtype=np.float64)
            texts = objects(block.column("explanation").to_pylist())
            unexplained = name in _notes(table)["unexplained"]
            found = np.where(rows < 0, np.nan, values[rows]) if len(values) else np.full(len(rows), np.nan)
            words = objects(["" if row < 0 else texts[row] for row in rows])
            out[name] = Scores(name, found, None if unexplained else words)
        return out

    return _understood(path, read)


def _notes(table: pa.Table) -> Any:
    return json.loads(table.schema.metadata[b"upturn"])


def _blocks(table: pa.Table, names: str, ids: Array | Sequence[str] | None) -> list[tuple[str, pa.Table, Array]]:
    """(name, its rows of the table, which of them belongs to each id) for each scorer or curator; all name the same
    samples in the same order."""
    notes = _notes(table)
    n = notes["rows"]
    own = table.slice(0, n).column("sample_id").to_pylist()
    rows = np.arange(n) if ids is None else align(own, list(ids))
    return [(name, table.slice(i * n, n), rows) for i, name in enumerate(notes[names])]


def align(own: list[str], wanted: list[str]) -> Array:
    """(len(wanted),) the position of each wanted id in ``own``, -1 where it is missing.

    Equal samples of a source have equal ids: the second wanted one is the second that is there.
    """
    if own == wanted:
        return np.arange(len(own))
    places: dict[str, list[int]] = {}
    for row, name in enumerate(own):
        places.setdefault(name, []).append(row)
    turn: dict[str, int] = {}
    found = np.full(len(wanted), -1, dtype=np.int64)
    for row, name in enumerate(wanted):
        if name in places:
            which = turn.get(name, 0)
            found[row] = places[name][min(which, len(places[name]) - 1)]
            turn[name] = which + 1
    return found


def write_selections(path: Path, samples: Samples, selections: Sequence[Selection]) -> None:
    """One row a curator and sample: sample_id, curator, kept, reason ("" where kept)."""
    import pyarrow as pa

    n, names = len(samples), [item.curator for item in selections]
    reasons = [text for item in selections for text in item.reasons.tolist()]
    table = pa.table({
        "sample_id": pa.array(samples.ids.tolist() * len(selections), pa.string()),
        "curator": pa.array(np.repeat(objects(names), n).tolist(), pa.string()),
        "kept": pa.array(_stack([item.kept for item in selections], n, bool)),
        "reason": pa.array(reasons, pa.string()),
    })
    write_table(path, with_notes(table, {"rows": n, "curators": names}))


def read_selections(path: Path, ids: Array | Sequence[str] | None = None) -> list[Selection]:
    """The selections in the order of the curators, rows in the order of ``ids`` (as written where none are given).

    Raises UserError where an id was never put before the curators.
    """
    table = read_table(path)

    def read() -> list[Selection]:
        out = []
        for name, block, rows in _blocks(table, "curators", ids):
            if (rows < 0).any():
                raise UserError(f"{int((rows < 0).sum())} samples are not in this file", where=str(path))
            kept, reasons = numbers(block.column("kept")), objects(block.column("reason").to_pylist())
            out.append(Selection(name, kept[rows], reasons[rows]))
        return out

    return _understood(path, read)


def write_mixture(path: Path, mixture: Mixture, units: Sequence[str] | Array) -> None:
    """Exactly what was trained on: sample_id, weight, origin, source, unit (N,) (the unit with each sample's content),
    group, candidate, and the further fields."""
    import pyarrow as pa

    samples = mixture.samples
    if not len(units) == len(mixture.weights) == len(samples):
        raise ValueError(f"{len(samples)} samples, {len(mixture.weights)} weights, {len(units)} units")
    further, notes = fields_of(samples)
    table = pa.table({
        "sample_id": pa.array(samples.ids.tolist(), pa.string()),
        "weight": pa.array(np.asarray(mixture.weights, dtype=np.float64)),
        "origin": pa.array(samples.origin.tolist(), pa.string()),
        "source": pa.array(samples.source.tolist(), pa.string()),
        "unit": pa.array([str(unit) for unit in units], pa.string()),
        "group": pa.array(np.asarray(samples.group, dtype=np.int64)),
        "candidate": pa.array(np.asarray(samples.candidate, dtype=np.int64)),
    } | further)
    write_table(path, with_notes(table, {"kind": samples.kind, "fields": notes}))


def read_mixture(run: Run, path: Path) -> Mixture:
    """The mixture, content and prompts taken from the samples of the units it names; rows in the order written.

    Raises UserError naming the file where a sample is missing in the unit that the mixture names.
    """
    table = read_table(path)
    notes, ids = _understood(path, lambda: (_notes(table), objects(table.column("sample_id").to_pylist())))
    units = objects(table.column("unit").to_pylist())
    parts: list[Samples] = []
    order = np.empty(len(ids), dtype=np.int64)
    start = 0
    for unit in sorted(set(units)):
        rows = np.flatnonzero(units == unit)
        part, inverse = _fetch(run.unit(unit) / SAMPLES, ids[rows])
        order[rows] = inverse + start
        start += len(part)
        parts.append(part)
    if not parts:
        raise UserError("this mixture is empty", where=str(path))
    whole = concatenate(parts).take(order) if len(parts) > 1 else parts[0].take(order)
    samples = Samples(
        whole.kind, whole.ids, whole.prompts, whole.content, objects(table.column("origin").to_pylist()),
        objects(table.column("source").to_pylist()), numbers(table.column("group")),
        numbers(table.column("candidate")), _understood(path, lambda: further_of(table, notes)),
    )
    return Mixture(samples, numbers(table.column("weight")))


def places(path: Path) -> list[str]:
    """The unit of each row of a mixture that stores its content."""
    return [str(unit) for unit in read_table(path).column("unit").to_pylist()]


def _fetch(path: Path, ids: Array) -> tuple[Samples, Array]:
    """The different samples among ``ids`` from one file, and which of them each id is."""
    table = read_table(path)
    different, inverse = np.unique(ids.astype(str), return_inverse=True)
    where = {name: row for row, name in reversed(list(enumerate(table.column("id").to_pylist())))}
    missing = [name for name in different if name not in where]
    if missing:
        raise UserError(
            f"{len(missing)} samples of a mixture are not in this file, such as {missing[0]}", where=str(path),
            fix="The run is damaged: put the file back from a copy.",
        )
    rows = np.array([where[name] for name in different], dtype=np.int64)
    # rows in the file's order: Arrow takes them twice as fast, and each image is decoded once
    ranks = np.argsort(rows, kind="stable")
    back = np.empty_like(ranks)
    back[ranks] = np.arange(len(ranks))
    return _understood(path, lambda: to_samples(table.take(rows[ranks]))), back[inverse]

"""Samples as an Arrow table and back, to the last bit; the columns follow Hugging Face features.

The schema carries two notes: ``huggingface`` (the features, so that ``datasets`` decodes images) and ``upturn`` (kind,
shape of the content, and how each further field came, so that it goes back the same).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upturn.errors import UserError
from upturn.store import files, png
from upturn.types import Array, Prompt, Samples, conversations, objects

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT = {"text": "text", "image": "image", "points": "point"}  # kind -> name of the content's column
BASE = ("id", "prompt", "label", "prompt_fields", "origin", "source", "group", "candidate")
_CHAT = ("prompt_messages", "prompt_tools")  # of tables in which some prompt is a conversation
_RESERVED = {*BASE, *CONTENT.values(), *_CHAT}
_PICTURES = 4096  # images encoded at a time, and rows of a row group with images
_ROWS = 1 << 16  # rows of any other row group


def feature(kind: Any) -> dict[str, Any]:
    """The Hugging Face feature of an Arrow type."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return {"feature": feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {"_type": "Image"}
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}


def field_column(name: str, values: Array) -> tuple[Any, dict[str, Any]]:
    """One further field (N, ...) as an Arrow array, with the note that brings it back."""
    import pyarrow as pa

    note: dict[str, Any] = {"dtype": values.dtype.str if values.dtype != object else "object"}
    try:
        if values.dtype.kind == "O":
            types = set(map(type, values))
            if all(kind is type(None) or issubclass(kind, str) for kind in types):
                return pa.array(values.tolist(), pa.string()), note
            text = [json.dumps(files.plain(value), sort_keys=True) for value in values]
            return pa.array(text, pa.string()), note | {"json": "tuple" if types == {tuple} else True}
        if values.dtype.kind == "U":
            return pa.array(values.tolist(), pa.string()), note
        if values.dtype.kind not in "biuf":
            raise TypeError(f"dtype {values.dtype}")
        if values.ndim > 1:
            width = int(np.prod(values.shape[1:]))
            inner = pa.array(np.ascontiguousarray(values).reshape(-1))
            return pa.FixedSizeListArray.from_arrays(inner, width), note | {"shape": list(values.shape[1:])}
        return pa.array(values), note
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"the field '{name}' cannot be stored: {error}") from error


def field_values(column: pa.ChunkedArray, note: Mapping[str, Any]) -> Array:
    """The values of a further field as they were given."""
    dtype = note["dtype"]
    if dtype == "object":
        values = column.to_pylist()
        if note.get("json") == "tuple":
            return objects([tuple(json.loads(value)) for value in values])
        return objects([json.loads(value) for value in values] if note.get("json") else values)
    if "shape" in note:
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.array(flat, dtype=dtype).reshape(len(column), *note["shape"])
    if np.dtype(dtype).kind == "U":
        return np.array(column.to_pylist(), dtype=dtype)
    return numbers(column).astype(dtype, copy=False)


def numbers(column: pa.ChunkedArray) -> Array:
    """(N,) an own, writable array of a column without nulls."""
    return np.array(column.to_numpy())


def content_column(samples: Samples) -> tuple[Any, list[int] | None]:
    """The content's column, and the shape of one row; None for images of several sizes."""
    import pyarrow as pa

    body = samples.content
    if samples.kind == "text":
        try:
            return pa.array(body.tolist(), pa.string()), []
        except (UnicodeEncodeError, pa.ArrowException) as error:
            raise ValueError(f"a text cannot be stored: {error}") from error
    if samples.kind == "points":
        if body.dtype != np.float32 or body.ndim != 2:
            raise ValueError(f"points must be (N, d) float32, not {body.shape} {body.dtype}")
        flat = pa.array(np.ascontiguousarray(body).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, body.shape[1]), list(body.shape[1:])
    chunks = []
    for start in range(0, len(body), _PICTURES) or [0]:
        pictures = pa.array(png.encode(body[start : start + _PICTURES]), pa.binary())
        paths = pa.nulls(len(pictures), pa.string())
        chunks.append(pa.StructArray.from_arrays([pictures, paths], names=["bytes", "path"]))
    return pa.chunked_array(chunks), None if body.dtype == object else list(body.shape[1:])


def prompt_columns(prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The columns prompt, label and prompt_fields (JSON); one object in many rows is encoded once.

    Where some prompt is a conversation also prompt_messages and prompt_tools (JSON, "" for none).
    """
    import pyarrow as pa

    encoded: dict[int, str] = {}
    for prompt in prompts:
        if id(prompt) not in encoded:
            encoded[id(prompt)] = json.dumps(dict(prompt.fields), sort_keys=True, ensure_ascii=False)
    columns = {
        "prompt": pa.array([prompt.text for prompt in prompts], pa.string()),
        "label": pa.array([prompt.label for prompt in prompts], pa.int64()),
        "prompt_fields": pa.array([encoded[id(prompt)] for prompt in prompts], pa.string()),
    }
    if any(prompt.messages for prompt in prompts):
        chats = {id(p): conversations.to_json(p.messages) if p.messages else "" for p in prompts}
        columns["prompt_messages"] = pa.array([chats[id(prompt)] for prompt in prompts], pa.string())
        columns["prompt_tools"] = pa.array([prompt.tools for prompt in prompts], pa.string())
    return columns


def to_table(samples: Samples) -> pa.Table:
    """Samples as a table; ValueError for content that does not fit the kind."""
    import pyarrow as pa

    content, shape = content_column(samples)
    columns: dict[str, Any] = {"id": pa.array(samples.ids.tolist(), pa.string()), **prompt_columns(samples.prompts)}
    columns[CONTENT[samples.kind]] = content
    columns |= {
        "origin": pa.array(samples.origin.tolist(), pa.string()),
        "source": pa.array(samples.source.tolist(), pa.string()),
        "group": pa.array(np.asarray(samples.group, dtype=np.int64)),
        "candidate": pa.array(np.asarray(samples.candidate, dtype=np.int64)),
    }
    further, notes = fields_of(samples)
    return with_notes(pa.table(columns | further), {"kind": samples.kind, "shape": shape, "fields": notes})


def fields_of(samples: Samples) -> tuple[dict[str, Any], dict[str, Any]]:
    """The further fields as columns, and their notes; a name that a base column has becomes ``field_<name>``."""
    columns: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    for name, values in samples.fields.items():
        column = f"field_{name}" if name in _RESERVED else name
        columns[column], note = field_column(name, np.asarray(values))
        notes[name] = note | {"column": column}
    return columns, notes


def with_notes(table: pa.Table, notes: Mapping[str, Any]) -> pa.Table:
    """The table with both notes in its schema."""
    features = {item.name: feature(item.type) for item in table.schema}
    return table.replace_schema_metadata({
        "huggingface": json.dumps({"info": {"features": features}}), "upturn": json.dumps(dict(notes)),
    })


def to_samples(table: pa.Table) -> Samples:
    """The samples of a table that ``to_table`` returned, or of some of its rows."""
    notes = json.loads(table.schema.metadata[b"upturn"])
    kind, shape = notes["kind"], notes["shape"]
    column = table.column(CONTENT[kind])
    if kind == "text":
        content = objects(column.to_pylist())
    elif kind == "points":
        flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
        content = np.concatenate(flat or [np.empty(0)]).astype(np.float32, copy=False).reshape(len(table), *shape)
    elif shape is None:
        content = png.decode_each([file for part in column.chunks for file in part.field("bytes").to_pylist()])
    else:
        parts = [png.decode(part.field("bytes").to_pylist(), tuple(shape)) for part in column.chunks if len(part)]
        content = np.concatenate(parts) if parts else np.empty((0, *shape), dtype=np.uint8)
    text = {name: objects(table.column(name).to_pylist()) for name in ("id", "origin", "source")}
    return Samples(
        kind, text["id"], prompts_of(table), content, text["origin"], text["source"],
        numbers(table.column("group")), numbers(table.column("candidate")), further_of(table, notes),
    )


def further_of(table: pa.Table, notes: Mapping[str, Any]) -> dict[str, Array]:
    """The further fields of a table."""
    return {name: field_values(table.column(note["column"]), note) for name, note in notes["fields"].items()}


def prompts_of(table: pa.Table) -> tuple[Prompt, ...]:
    """The prompts of a table: equal ones are one object."""
    names = ["prompt", "label", "prompt_fields", *(name for name in _CHAT if name in table.column_names)]
    rows = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    found = {row: _prompt(*row) for row in set(rows)}
    return tuple(found[row] for row in rows)


def _prompt(text: str, label: int | None, fields: str, messages: str = "", tools: str = "") -> Prompt:
    return Prompt(text, label, json.loads(fields), conversations.from_json(messages) if messages else (), tools)


def write_table(path: Path, table: pa.Table) -> None:
    """One Parquet file; RunError for a full disk, UserError without permission."""
    import pyarrow.parquet as pq

    plain = ["prompt", "prompt_fields", *_CHAT, "label", "origin", "source", "unit", "scorer", "curator", "reason"]
    compression = {name: "none" if name == "image.bytes" else "zstd" for name in _leaves(table)}
    rows = _PICTURES if "image" in table.column_names else _ROWS
    with files.disk_errors(path):
        pq.write_table(
            table, path, row_group_size=rows, compression=compression,
            use_dictionary=[name for name in plain if name in table.column_names],
        )


def _leaves(table: pa.Table) -> list[str]:
    """The names of the stored columns, as Parquet counts them."""
    return ["image.bytes" if name == "image" else name for name in table.column_names]


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, all columns or some; UserError naming the file where it is missing, cut off or damaged."""
    with _parquet(path) as file:
        return file.read(columns=None if columns is None else list(columns))


def read_batches(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The same file, at most ``rows`` rows at a time, each batch with the schema's notes."""
    with _parquet(path) as file:
        yield from file.iter_batches(batch_size=rows)


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(path)) from error
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"this Parquet file cannot be read: {str(error).splitlines()[0]}", where=str(path),
            fix="It is damaged or cut off: put it back from a copy, or remove its round and run it again.",
        ) from error

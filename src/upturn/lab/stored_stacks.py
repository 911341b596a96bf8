"""The stored chunks of a stack of cells, each committed whole or not at all, and a mark after the last."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upturn.errors import RunError
from upturn.lab.experiment import Cell, Chunk, Cloud, Experiment, State
from upturn.lab.rows import record
from upturn.store import columns, files
from upturn.store.commit import STAGES, commit, read_record, record_path
from upturn.types import content_id

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "shards"
_DONE = "done"
_CHUNK = re.compile(r"chunk-(\d+)\.json")
_STATE = re.compile(r"state-(\d+)\.safetensors")


def stack_name(experiment: Experiment, cells: Sequence[Cell]) -> str:
    """The name of a stack: a hash of the experiment, its version, its settings that are not lists, and its cells."""
    fixed = {
        item.name: getattr(experiment, item.name)
        for item in dataclasses.fields(experiment) if item.name not in experiment.grid()
    }
    settings, grid = files.to_json(json_value(fixed)), files.to_json(json_value(cells))
    return content_id(type(experiment).__name__, experiment.version, settings, grid)


def json_value(value: Any) -> Any:
    """``value`` with infinities as text, because JSON has none."""
    if isinstance(value, Mapping):
        return {name: json_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


class Shard:
    """The folder of one stack."""

    def __init__(self, folder: Path, experiment: Experiment, cells: Sequence[Cell]) -> None:
        self.name = stack_name(experiment, cells)
        self.folder = folder / FOLDER / self.name
        self.experiment, self.cells = experiment, cells

    @property
    def done(self) -> bool:
        return record_path(self.folder, _DONE).is_file()

    @property
    def chunks(self) -> int:
        """Number of stored chunks."""
        found = [_CHUNK.fullmatch(path.name) for path in (self.folder / STAGES).glob("chunk-*.json")]
        return max((int(match[1]) for match in found if match), default=0)

    @property
    def seconds(self) -> float:
        """Computing time of all its chunks."""
        return sum(read_record(record_path(self.folder, _step(n))).seconds for n in range(1, self.chunks + 1))

    def work(self, say: Any) -> None:
        """Compute the missing chunks; ``say(chunk number, seconds, note)`` after each chunk."""
        after = self.chunks
        clock = time.perf_counter()
        for number, chunk in enumerate(
            self.experiment.chunks(self.cells, after, self.state(after)), start=after + 1
        ):
            seconds = time.perf_counter() - clock
            self._keep(number, chunk, seconds)
            self.tidy()
            say(number, seconds, chunk.note)
            clock = time.perf_counter()
        with commit(self.folder, self.name, _DONE):
            pass
        self.tidy()

    def tidy(self) -> None:
        """Delete all states but the last, and of a finished stack the last too: they hold whole models."""
        after = math.inf if self.done else self.chunks
        for path in self.folder.glob("state-*.safetensors"):
            match = _STATE.fullmatch(path.name)
            if match and int(match[1]) < after:
                files.remove(path)

    def state(self, number: int) -> State:
        """The state that chunk ``number`` left for the next. RunError if it is missing."""
        path = self.folder / f"state-{number:04d}.safetensors"
        if not number or path.name not in read_record(record_path(self.folder, _step(number))).files:
            return {}
        if not path.is_file():
            raise RunError(
                "the state of the last finished chunk is missing", where=str(path),
                fix=f"Delete {self.folder} and run again.",
            )
        from safetensors.numpy import load_file

        return dict(load_file(path))

    def _keep(self, number: int, chunk: Chunk, seconds: float) -> None:
        with commit(self.folder, self.name, _step(number)) as draft:
            draft.seconds = seconds
            draft.counts = {"rows": len(chunk.rows), "clouds": len(chunk.clouds)}
            columns.write_table(draft.path / f"rows-{number:04d}.parquet", self._rows(chunk))
            if chunk.clouds:
                columns.write_table(draft.path / f"clouds-{number:04d}.parquet", self._clouds(chunk.clouds))
            if chunk.state:
                from safetensors.numpy import save_file

                state = {name: np.ascontiguousarray(value) for name, value in chunk.state.items()}
                save_file(state, draft.path / f"state-{number:04d}.safetensors")

    def _rows(self, chunk: Chunk) -> pa.Table:
        formulas = self.experiment.formulas
        rows = []
        for row in chunk.rows:
            kind = formulas[row.formula].kind if row.formula else "equal"
            rows.append({**self.cells[row.cell], **record(row, kind)})
        return _table(rows)

    def _clouds(self, clouds: Sequence[Cloud]) -> pa.Table:
        import pyarrow as pa

        parts = []
        for cloud in clouds:
            points = np.asarray(cloud.points, dtype=np.float32)
            fixed = {**self.cells[cloud.cell], "picture": cloud.picture, "row": cloud.row, "column": cloud.column}
            parts.append(pa.table({
                **{name: pa.array([_cell_value(value)] * len(points)) for name, value in fixed.items()},
                "x": points[:, 0], "y": points[:, 1],
            }))
        return pa.concat_tables(parts, promote_options="permissive")

    def read(self, what: str) -> list[pa.Table]:
        """The tables of its chunks, in order: "rows" or "clouds"."""
        paths = [self.folder / f"{what}-{n:04d}.parquet" for n in range(1, self.chunks + 1)]
        return [columns.read_table(path) for path in paths if path.is_file()]


def _step(number: int) -> str:
    return f"chunk-{number:04d}"


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as columns; integers of a cell stay integers, other numbers are float64, NaN is null."""
    import pyarrow as pa

    floats = {"round", "theory", "simulation", "standard_error", "z", "tolerance", "low", "high"}
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = {}
    for name in names:
        values = [_cell_value(row.get(name)) for row in rows]
        if name in floats:
            values = [None if value is None or np.isnan(value) else float(value) for value in values]
            arrays[name] = pa.array(values, pa.float64())
        else:
            arrays[name] = pa.array(values, pa.bool_() if name in ("meaningful", "agrees") else None)
    return pa.table(arrays)


def _cell_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value

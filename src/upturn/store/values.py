"""A metric's value for each evaluation sample: what the gate pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from upturn.errors import UserError
from upturn.types import Array


def write_values(path: Path, values: Mapping[str, Array | None]) -> None:
    """values.parquet: columns metric, row, value; metrics without values a sample have no rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = {name: np.asarray(v, dtype=np.float64) for name, v in values.items() if v is not None}
    table = pa.table({
        "metric": pa.array([name for name, v in known.items() for _ in range(len(v))], pa.string()),
        "row": pa.array([row for v in known.values() for row in range(len(v))], pa.int64()),
        "value": pa.array(np.concatenate(list(known.values()) or [np.zeros(0)]), pa.float64()),
    })
    pq.write_table(table, path)


def read_values(path: Path) -> dict[str, Array]:
    """By metric, in the order of rows. Raises UserError where the file cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"cannot be read: {str(error).splitlines()[0]}", where=str(path),
            fix="Remove the stage record 'evaluate' of this unit and run again.",
        ) from error
    names = np.asarray(table["metric"].to_pylist(), dtype=object)
    value = table["value"].to_numpy()
    return {str(name): value[names == name] for name in dict.fromkeys(names)}

"""The results of an experiment: one table, a verdict for each formula, and the data of its page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.lab.experiment import Experiment
from upturn.lab.rows import BOUND, Formula
from upturn.lab.stored_stacks import Shard, json_value
from upturn.store import columns, files

if TYPE_CHECKING:
    import pyarrow as pa

RESULTS, TABLE, CLOUDS = "results.json", "table.parquet", "clouds.parquet"


def collect(name: str, experiment: Experiment, shards: Sequence[Shard], folder: Path) -> dict[str, Any]:
    """Write table.parquet, clouds.parquet and results.json from the chunks; return results with "checks", the rows.

    Settings with one value are also keys of the results: "n", "rounds", …; those of a single cell as resolved.
    """
    table = _joined(shards, "rows")
    assert table is not None  # an experiment spans at least one cell
    columns.write_table(folder / TABLE, table)
    clouds = _joined(shards, "clouds")
    if clouds is None:
        files.remove(folder / CLOUDS)
    else:
        columns.write_table(folder / CLOUDS, clouds)
    checks: list[dict[str, Any]] = [dict(row) for row in table.to_pylist()]
    cells = experiment.cells()
    verdicts = verdict(experiment.formulas, checks)
    settings = {item.name: getattr(experiment, item.name) for item in dataclasses.fields(experiment)}
    judged = [row for row in checks if row["agrees"] is not None]
    found = {
        "study": name, "title": experiment.title, "question": experiment.question,
        "seconds": round(sum(shard.seconds for shard in shards), 4), "cells": len(cells),
        "settings": json_value(settings), "grid": [key for key in experiment.grid() if len(settings[key]) > 1],
        "varied": list(dict.fromkeys(key for cell in cells for key in cell)),
        "verdict": verdicts, "largest_z": max((v["largest_z"] for v in verdicts), default=0.0), "bound": BOUND,
        "tested": len(judged), "agree": all(row["agrees"] for row in judged),
        "sentences": list(experiment.sentences(checks)),
        "charts": [json_value(dataclasses.asdict(chart)) for chart in experiment.charts()],
    }
    files.write_text(folder / RESULTS, files.to_json(found))
    alone = cells[0] if len(cells) == 1 else {}
    return {**json_value({**_single(settings), **alone}), **found, "checks": json_value(checks)}


def _joined(shards: Sequence[Shard], what: str) -> pa.Table | None:
    import pyarrow as pa

    parts = [table for shard in shards for table in shard.read(what)]
    return pa.concat_tables(parts, promote_options="permissive") if parts else None


def _single(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A list of one value becomes that value; other values do not change."""
    return {
        key: value[0] if isinstance(value, list) and len(value) == 1 else value for key, value in settings.items()
    }


def verdict(formulas: Mapping[str, Formula], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each formula: number of checks and failures, and the largest z on the wrong side with its cell.

    "unmeaningful" counts rows whose mean depends on a few replicas: they are displayed and not tested.
    """
    out = []
    for name, formula in formulas.items():
        own = [row for row in rows if row["formula"] == name]
        tested = [row for row in own if row["agrees"] is not None]
        if not own:
            continue
        scores = [(_wrong_side(row["z"], formula.kind), row) for row in tested if row["z"] is not None]
        largest, worst = max(scores, key=lambda pair: pair[0], default=(0.0, None))
        failed = [row for row in tested if not row["agrees"]]
        example = worst or (failed[0] if failed else None)
        out.append({
            "formula": name, **dataclasses.asdict(formula), "tested": len(tested), "failed": len(failed),
            "unmeaningful": sum(not row["meaningful"] for row in own), "largest_z": max(largest, 0.0),
            "exact": sum(row["z"] is None for row in tested), "agrees": not failed,
            "worst": None if example is None else _place(example),
        })
    return out


def _wrong_side(z: float, kind: str) -> float:
    return abs(z) if kind == "equal" else z


_OF_A_ROW = frozenset({
    "quantity", "round", "theory", "simulation", "standard_error", "z", "meaningful", "agrees", "tolerance", "count",
    "low", "high", "formula",
})


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    """The quantity, round and cell of a row."""
    cell = {key: json_value(value) for key, value in row.items() if key not in _OF_A_ROW}
    return {"quantity": row["quantity"], "round": row["round"], **cell}

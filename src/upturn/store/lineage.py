"""Ancestry, both ways: from a sample to its real roots, and from a sample to all that it touched (takedown).

It is read from the files: samples record the model that generated them (``source``) and, where a prompt was taken from
another sample, that one (``parent``); records of training know the model they started from and the mixture; a mixture
knows its samples. DuckDB reads only the columns it needs, so images are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upturn.errors import UserError
from upturn.store.columns import read_table
from upturn.store.lineage_db import LineageIndex, ModelNode
from upturn.types import REAL

if TYPE_CHECKING:
    from upturn.store.run import Run

LIMIT = 1000  # ids listed by default; counts are always of all


@dataclass(frozen=True)
class Place:
    """One file that holds a sample. ``split`` is train or held_out for real data, null elsewhere."""

    unit: str
    file: str
    split: str | None


@dataclass(frozen=True)
class Ancestor:
    """A model on the way: where it was trained, from which model, and on how many rows of its mixture.

    ``unrecorded``: its mixture is not in the run, so that what it was trained on is unknown.
    """

    model: str
    unit: str
    parent: str | None
    real: int
    synthetic: int
    unrecorded: bool


@dataclass(frozen=True)
class Trace:
    """Where a sample comes from.

    models     every model it descends from, its own first
    roots      source -> number of different real samples it descends from; ``real`` names them, ``limit`` at most
    foreign    models that generated samples in the lineage and were not trained in this run -> number of those samples
    """

    id: str
    origin: str
    source: str
    parent: str | None
    places: list[Place]
    models: list[Ancestor]
    roots: dict[str, int]
    real: list[str]
    foreign: dict[str, int]


@dataclass(frozen=True)
class Touched:
    """A model that a sample reached: ``direct`` where its own mixture holds the sample."""

    model: str
    unit: str
    direct: bool


@dataclass(frozen=True)
class Takedown:
    """All that a sample touched: what to remove to be rid of it.

    mixtures   unit -> rows of its mixture that are the sample itself
    models     those trained on it, those that start from one of them, and those trained on their samples
    samples    unit -> number of different samples of these models, or whose prompt was taken from it
    ids        those samples, ``limit`` at most
    unrecorded units of models whose mixture is not in the run: whether they saw the sample is unknown
    """

    id: str
    origin: str
    source: str
    places: list[Place]
    mixtures: dict[str, int]
    models: list[Touched]
    samples: dict[str, int]
    ids: list[str]
    unrecorded: list[str]


def trace(run: Run, sample: str, limit: int | None = LIMIT) -> Trace:
    """From a sample (its id, or 6 characters of it and more) to its real roots.

    Raises UserError where no sample, or more than one, is called so.
    """
    with LineageIndex(run) as index:
        row = index.find(sample)
        models, foreign = index.ancestors(row)
        roots = dict(index.ask("SELECT source, count(DISTINCT id) FROM root GROUP BY source ORDER BY source"))
        real = [name for (name,) in index.ask(f"SELECT DISTINCT id FROM root ORDER BY id {_limited(limit)}")]
        return Trace(
            row.id, row.origin, row.source, row.parent, _places(index, row.id),
            [_ancestor(name, index.models[name]) for name in models], roots, real, foreign,
        )


def trace_down(run: Run, sample: str, limit: int | None = LIMIT) -> Takedown:
    """From a sample, real or synthetic, to every mixture, model and sample that it touched.

    Raises UserError as ``trace``.
    """
    with LineageIndex(run) as index:
        row = index.find(sample)
        models, direct = index.descendants(row)
        mixtures = dict(index.ask("SELECT unit, count(*) FROM mixed WHERE id = ? GROUP BY unit ORDER BY unit", row.id))
        samples = dict(index.ask("SELECT unit, count(DISTINCT id) FROM touched GROUP BY unit ORDER BY unit"))
        ids = [name for (name,) in index.ask(f"SELECT DISTINCT id FROM touched ORDER BY id {_limited(limit)}")]
        reached = [Touched(name, index.models[name].unit, name in direct) for name in models]
        unknown = sorted(model.unit for model in index.models.values() if model.mixture is None)
        return Takedown(
            row.id, row.origin, row.source, _places(index, row.id), mixtures, reached, samples, ids, unknown)


def real_fraction(
    run: Run, unit: str, uncertain: Mapping[str, tuple[float, float]] | None = None
) -> tuple[float, float]:
    """The share of a unit's mixture, by weight, that is real: an interval (low, high).

    ``uncertain``: a source declared real that may hold synthetic samples -> its measured real share, (low, high).
    Raises UserError where the unit has no mixture or no weight in it; ValueError for a share outside 0..1.
    """
    import numpy as np

    shares = dict(uncertain or {})
    for source, (low, high) in shares.items():
        if not 0 <= low <= high <= 1:
            raise ValueError(f"the real share of '{source}' must be 0 <= low <= high <= 1, not {low}, {high}")
    path = run.unit(unit) / "mixture.parquet"
    table = read_table(path, ["weight", "origin", "source"])
    weights = table.column("weight").to_numpy()
    total = float(weights.sum())
    if not total > 0:
        raise UserError("the weights of this mixture sum to nothing", where=str(path))
    real = np.array(table.column("origin").to_pylist(), dtype=object) == REAL
    sources = np.array(table.column("source").to_pylist(), dtype=object)
    ends = [0.0, 0.0]
    for source in set(sources[real]):
        held = float(weights[real & (sources == source)].sum())
        for end, share in enumerate(shares.get(source, (1.0, 1.0))):
            ends[end] += held * share
    return min(ends[0] / total, 1.0), min(ends[1] / total, 1.0)


def _limited(limit: int | None) -> str:
    return "" if limit is None else f"LIMIT {int(limit)}"


def _places(index: LineageIndex, sample: str) -> list[Place]:
    found = index.ask("SELECT DISTINCT unit, file, split FROM sample WHERE id = ? ORDER BY ALL", sample)
    return [Place(*row) for row in found]


def _ancestor(name: str, model: ModelNode) -> Ancestor:
    return Ancestor(name, model.unit, model.parent, model.real, model.synthetic, model.mixture is None)

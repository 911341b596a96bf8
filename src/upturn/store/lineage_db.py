"""What is known of a run's ancestry, in DuckDB: every sample, every row of every mixture, and the graph of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.errors import UserError
from upturn.types import REAL, SYNTHETIC

if TYPE_CHECKING:
    import duckdb

    from upturn.store.run import Run

SHORTEST = 6  # characters of an id that are enough to look for it


@dataclass
class ModelNode:
    """One trained model, and the rows of its mixture; ``mixture`` is None where that is not in the run."""

    unit: str
    parent: str | None
    mixture: str | None
    makers: dict[str, int] = field(default_factory=dict)  # models that generated samples of its mixture -> rows
    real: int = 0
    synthetic: int = 0


@dataclass(frozen=True)
class SampleNode:
    """A sample that was looked up."""

    id: str
    origin: str
    source: str
    parent: str | None


class LineageIndex:
    """The tables ``sample`` and ``mixed``, and ``models`` by id; UserError naming a file that cannot be read."""

    def __init__(self, run: Run) -> None:
        import duckdb

        self._run = run
        self._db: duckdb.DuckDBPyConnection = duckdb.connect(":memory:")
        self._samples()
        self._mixtures()
        self.models = self._models()

    def __enter__(self) -> LineageIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def ask(self, query: str, *values: Any) -> list[Any]:
        rows: list[Any] = self._db.execute(query, list(values)).fetchall()
        return rows

    # reading

    def _samples(self) -> None:
        self._db.execute(
            "CREATE TABLE sample (id VARCHAR, origin VARCHAR, source VARCHAR, parent VARCHAR, split VARCHAR, "
            "guide VARCHAR, unit VARCHAR, file VARCHAR)")
        for unit, path in self._tables():
            names = _columns(path)
            if not {"id", "origin", "source"} <= names:
                continue
            parent, split = (name if name in names else "NULL" for name in ("parent", "split"))
            # a checkpoint belongs to the final model of its training
            made = f"CASE WHEN origin = '{SYNTHETIC}' THEN split_part(CAST(guide AS VARCHAR), '/', 1) END"
            guide = made if "guide" in names else "NULL"
            self._read(path, "sample", f"id, origin, source, {parent}, {split}, {guide}, '{unit}', '{path.name}'")

    def _mixtures(self) -> None:
        self._db.execute("CREATE TABLE mixed (unit VARCHAR, id VARCHAR, origin VARCHAR, source VARCHAR)")
        for unit, path in self._tables():
            if path.name == "mixture.parquet":
                # what weighs nothing was not trained on
                self._read(path, "mixed", f"'{unit}', sample_id, origin, source", "WHERE weight <> 0")

    def _tables(self) -> Iterable[tuple[str, Path]]:
        for unit in self._run.units():
            for path in sorted(self._run.unit(unit).glob("*.parquet")):
                yield unit, path

    def _read(self, path: Path, into: str, columns: str, where: str = "") -> None:
        import duckdb

        try:
            self._db.execute(f"INSERT INTO {into} SELECT {columns} FROM read_parquet(?) {where}", [str(path)])
        except duckdb.Error as error:
            raise UserError(f"this Parquet file cannot be read: {error}", where=str(path)) from error

    def _models(self) -> dict[str, ModelNode]:
        """Model id -> where and on what it was trained; of two records with one model, the first is of its training."""
        found: dict[str, ModelNode] = {}
        held: dict[str, list[tuple[str, str, int]]] = {}
        for unit, origin, source, rows in self.ask(
            "SELECT unit, origin, source, count(*) FROM mixed GROUP BY ALL ORDER BY ALL"
        ):
            held.setdefault(unit, []).append((origin, source, rows))
        for record in self._run.records():
            name = record.info.get("model")
            if "model" not in record.files or not isinstance(name, str) or name in found:
                continue
            mixture = record.info.get("mixture")
            model = ModelNode(record.unit, record.info.get("parent"), mixture if mixture in held else None)
            for origin, source, rows in held.get(str(mixture), []):
                if origin == SYNTHETIC:
                    model.makers[source] = model.makers.get(source, 0) + rows
                    model.synthetic += rows
                else:
                    model.real += rows
            found[name] = model
        return found

    # looking up

    def find(self, prefix: str) -> SampleNode:
        where = str(self._run.folder)
        if len(prefix) < SHORTEST:
            raise UserError(f"'{prefix}' is too short to name a sample", where=where,
                            fix=f"Give at least the first {SHORTEST} characters of its id.")
        rows = self.ask(
            "SELECT id, any_value(origin), any_value(source), any_value(parent) FROM sample WHERE starts_with(id, ?) "
            "GROUP BY id ORDER BY id = ? DESC, id LIMIT 4", prefix, prefix)
        if not rows:
            raise UserError(f"no sample's id begins with '{prefix}'", where=where,
                            fix="The ids are in the column 'id' of the samples.parquet files.")
        if len(rows) > 1 and rows[0][0] != prefix:
            few = ", ".join(row[0] for row in rows[:3]) + (", …" if len(rows) > 3 else "")
            raise UserError(f"'{prefix}' is the beginning of several ids: {few}", where=where, fix="Give more of it.")
        return SampleNode(*rows[0])

    # walking

    def ancestors(self, row: SampleNode) -> tuple[list[str], dict[str, int]]:
        """Models above a sample, nearest first, and foreign ones; fills the table ``root`` (id, source)."""
        self._db.execute("CREATE TEMP TABLE above (id VARCHAR, origin VARCHAR, source VARCHAR)")
        self._db.execute("INSERT INTO above VALUES (?, ?, ?)", [row.id, row.origin, row.source])
        models: dict[str, None] = {}
        foreign: dict[str, int] = {}
        frontier = [row.source, *self._guides()] if row.origin == SYNTHETIC else []
        units: list[str] = []
        while True:
            units += self._climb(frontier, models, foreign)
            self._db.execute(
                "INSERT INTO above SELECT DISTINCT id, origin, source FROM mixed WHERE list_contains(?, unit) "
                "AND id NOT IN (SELECT id FROM above)", [units])
            # prompts taken from other samples: those are ancestors too
            before = self.ask("SELECT count(*) FROM above")[0][0]
            self._db.execute(
                "INSERT INTO above SELECT DISTINCT p.id, p.origin, p.source FROM sample p "
                "WHERE p.id IN (SELECT s.parent FROM sample s SEMI JOIN above USING (id)) "
                "AND p.id NOT IN (SELECT id FROM above)")
            if self.ask("SELECT count(*) FROM above")[0][0] == before:
                break
            frontier = [name for (name,) in self.ask(
                "SELECT DISTINCT source FROM above WHERE origin = ? ORDER BY source", SYNTHETIC) if name not in models]
            frontier += [name for name in self._guides() if name not in models]
            units = []
        self._db.execute(
            "CREATE TEMP TABLE root AS SELECT DISTINCT id, source FROM above WHERE origin = ? AND id <> ?",
            [REAL, row.id])
        return list(models), foreign

    def _guides(self) -> list[str]:
        """Models that guided the samples in the table ``above``: what they learned from is in those samples, too."""
        return [name for (name,) in self.ask(
            "SELECT DISTINCT s.guide FROM sample s SEMI JOIN above USING (id) WHERE s.guide IS NOT NULL ORDER BY 1")]

    def _climb(self, frontier: Sequence[str], models: dict[str, None], foreign: dict[str, int]) -> list[str]:
        """Every model reached from ``frontier`` by parent or by makers, breadth first; returns their mixtures."""
        mixtures: list[str] = []
        waiting = list(frontier)
        while waiting:
            following: list[str] = []
            for name in waiting:
                if name in models or name in foreign:
                    continue
                if name not in self.models:
                    foreign[name] = self.ask("SELECT count(DISTINCT id) FROM sample WHERE source = ?", name)[0][0]
                    continue
                models[name] = None
                model = self.models[name]
                following += [model.parent] if model.parent else []
                following += model.makers
                mixtures += [model.mixture] if model.mixture else []
            waiting = following
        return mixtures

    def descendants(self, row: SampleNode) -> tuple[list[str], set[str]]:
        """Models below a sample, and those whose mixture holds it; fills the table ``touched`` (id, unit)."""
        self._db.execute("CREATE TEMP TABLE below (id VARCHAR)")
        self._db.execute("INSERT INTO below VALUES (?)", [row.id])
        holding = {unit for (unit,) in self.ask("SELECT DISTINCT unit FROM mixed WHERE id = ?", row.id)}
        direct = {name for name, model in self.models.items() if model.mixture in holding}
        reached: dict[str, None] = {}
        while True:
            before = len(reached), self.ask("SELECT count(*) FROM below")[0][0]
            holding = {unit for (unit,) in self.ask("SELECT DISTINCT unit FROM mixed SEMI JOIN below USING (id)")}
            self._descend([name for name, model in self.models.items() if model.mixture in holding], reached)
            self._db.execute(
                "INSERT INTO below SELECT DISTINCT id FROM sample WHERE (list_contains(?, source) "
                "OR list_contains(?, guide) OR parent IN (SELECT id FROM below)) AND id NOT IN (SELECT id FROM below)",
                [list(reached), list(reached)])
            if before == (len(reached), self.ask("SELECT count(*) FROM below")[0][0]):
                break
        self._db.execute(
            "CREATE TEMP TABLE touched AS SELECT DISTINCT s.id, s.unit FROM sample s SEMI JOIN below USING (id) "
            "WHERE s.id <> ?", [row.id])
        return list(reached), direct

    def _descend(self, start: Sequence[str], reached: dict[str, None]) -> None:
        """Every model reached downwards by parent or by makers."""
        waiting = [name for name in start if name not in reached]
        while waiting:
            reached |= dict.fromkeys(waiting)
            waiting = [
                name for name, model in self.models.items()
                if name not in reached and (model.parent in reached or any(maker in reached for maker in model.makers))
            ]


def _columns(path: Path) -> set[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"this Parquet file cannot be read: {str(error).splitlines()[0]}", where=str(path),
            fix="It is damaged or cut off: put it back from a copy.",
        ) from error

"""What the report shows, read from a run's folder: the models in their order, and what each of them left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from upturn.runs import status as statuses
from upturn.runs.status import RunStatus
from upturn.seeds import key
from upturn.statistics.intervals import bootstrap_mean
from upturn.store import files, parquet_tables
from upturn.store.columns import read_table, to_samples
from upturn.store.commit import Record
from upturn.store.run import Run
from upturn.store.values import read_values
from upturn.types import Array, Samples

Decision = Literal["stage", "promoted", "rejected", "pending"]
DATA = "data"


@dataclass(frozen=True)
class Column:
    """One model of the run: after a stage before the rounds, or after a round. Charts have a column for each."""

    unit: str
    title: str  # "finetune", "round 2"
    short: str  # for axes
    round: int | None  # None for stages that are not the last
    decision: Decision
    metrics: Mapping[str, Mapping[str, Any]]

    @property
    def note(self) -> str:
        return "round 0" if self.decision == "stage" and self.round == 0 else ""

    @property
    def full_title(self) -> str:
        return f"{self.title} (round 0)" if self.note else self.title


@dataclass(frozen=True)
class Difference:
    """Newer minus older on the same prompts and noise, with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Trained:
    """One training of the policy, begun or not: a stage before the rounds, or one of the trainings of a round."""

    title: str
    unit: str


class Facts:
    """A run, opened for reading. Everything may be missing: what is not there yet is empty."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.status: RunStatus = statuses.read(run)
        self.recipe = self.status.recipe
        self.records: dict[tuple[str, str], Record] = {(r.unit, r.step): r for r in run.records()}

    @cached_property
    def columns(self) -> list[Column]:
        """Every model that was measured, in order."""
        zero, *rounds = self.status.rounds
        found = []
        for stage in zero.stages:
            last = stage is zero.stages[-1]
            found.append(Column(stage.unit, stage.name, stage.name, 0 if last else None, "stage", stage.metrics))
        for r in rounds:
            decision: Decision = "pending"
            if r.gate is not None:
                decision = "promoted" if r.gate.get("decision") == "promoted" else "rejected"
            found.append(Column(r.unit, f"round {r.round}", str(r.round), r.round, decision, r.metrics))
        return [column for column in found if column.metrics]

    @cached_property
    def kept(self) -> Column | None:
        """The model that the run stands at: the newest promoted round, else round 0."""
        promoted = [c for c in self.columns if c.decision == "promoted"]
        base = [c for c in self.columns if c.round == 0]
        return next(reversed(promoted or base), None)

    @cached_property
    def trainings(self) -> list[Trained]:
        """All that the recipe asks for, in order; the last of a round makes the round's model."""
        zero, *rounds = self.status.rounds
        found = [Trained(stage.name, stage.unit) for stage in zero.stages]
        turns = self.recipe.rounds.train if self.recipe.rounds is not None else []
        for r in rounds:
            found += [Trained(f"round {r.round}: {turn.label}", f"{r.unit}/{turn.label}") for turn in turns[:-1]]
            last = f": {turns[-1].label}" if len(turns) > 1 else ""
            found.append(Trained(f"round {r.round}{last}", r.unit))
        return found

    def real_fraction(self, unit: str) -> float | None:
        """Of what a training ate, by weight; online the training mixes for itself."""
        found = self.info(unit, "mix").get("real_fraction", self.info(unit, "train").get("real_fraction"))
        return None if found is None else float(found)

    @cached_property
    def synthetic_in_real(self) -> tuple[float, float] | None:
        """Of the data that claims to be real, the synthetic share, (low, high); None where nobody asked."""
        found = self.info(DATA, "provenance")
        return (float(found["low"]), float(found["high"])) if found else None

    @cached_property
    def metric_names(self) -> list[str]:
        """All that were measured, the recipe's order first."""
        seen = dict.fromkeys(name for column in self.columns for name in column.metrics)
        return [*(n for n in self.recipe.metric_names() if n in seen),
                *(n for n in seen if n not in self.recipe.metric_names())]

    @cached_property
    def specs(self) -> dict[str, Mapping[str, Any]]:
        """The name in metrics.json -> the metric of the recipe that it is."""
        parts = [metric for evaluation in self.recipe.evaluate for metric in evaluation.metrics]
        return dict(zip(self.recipe.metric_names(), parts, strict=True))

    @cached_property
    def headline(self) -> str | None:
        """The metric that the run is judged by: the gate's, else the first of the recipe that was measured."""
        if self.recipe.gate is not None:
            return self.recipe.gate.metric
        return self.metric_names[0] if self.metric_names else None

    def path(self, unit: str, name: str) -> Path | None:
        """A file of a unit, where it is there."""
        path = self.run.unit(unit) / name
        return path if path.exists() else None

    def info(self, unit: str, step: str) -> Mapping[str, Any]:
        record = self.records.get((unit, step))
        return {} if record is None else record.info

    def counts(self, unit: str, step: str) -> Mapping[str, int]:
        record = self.records.get((unit, step))
        return {} if record is None else record.counts

    def samples(self, unit: str, name: str) -> Samples | None:
        path = self.path(unit, name)
        return None if path is None else parquet_tables.read_samples(path)

    def some(self, unit: str, name: str, ids: list[str]) -> dict[str, Any]:
        """Id -> sample, for a few samples of a large table: only their pictures are decoded."""
        path = self.path(unit, name)
        if path is None or not ids:
            return {}
        table = read_table(path)
        wanted = set(ids)
        own = table.column("id").to_pylist()
        found = to_samples(table.take([row for row, name in enumerate(own) if name in wanted]))
        return {sample.id: sample for sample in found}

    def losses(self, unit: str) -> list[dict[str, float]]:
        path = self.path(unit, "losses.json")
        points: list[dict[str, float]] = files.read_json(path) if path is not None else []
        return points

    def difference(self, newer: Column, older: Column, metric: str) -> Difference | None:
        """Paired by sample, candidates of one prompt kept together; None for metrics without a value a sample."""
        values, groups = [], []
        for column in (newer, older):
            path = self.path(column.unit, "values.parquet")
            found = None if path is None else read_values(path).get(metric)
            if found is None or len(found) == 0:
                return None
            values.append(found)
            groups.append(self._groups(column.unit, metric))
        if len(values[0]) != len(values[1]):
            return None
        change: Array = values[0] - values[1]
        groups_of = groups[0] if groups[0] is not None and len(groups[0]) == len(change) else None
        if np.isnan(change).all():
            return None
        low, high = bootstrap_mean(change, key(self.recipe.seed, "report", metric), clusters=groups_of)
        return Difference(float(np.nanmean(change)), low, high)

    def _groups(self, unit: str, metric: str) -> Array | None:
        evaluation = metric.rpartition("/")[0]
        path = self.path(unit, f"evaluation-{evaluation}.parquet" if evaluation else "evaluation.parquet")
        return None if path is None else np.asarray(read_table(path, ["group"]).column("group").to_numpy())

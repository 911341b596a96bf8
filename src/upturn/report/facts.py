"""The facts of a run that the report displays, read from the run directory: its models in order, and their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from upturn.runs import status as statuses
from upturn.runs.status import RunStatus
from upturn.seeds import key
from upturn.statistics.intervals import bootstrap_mean
from upturn.store import files, parquet_tables
from upturn.store.columns import read_table, to_samples
from upturn.store.commit import Record
from upturn.store.promotion import newest_promoted
from upturn.store.run import Run
from upturn.store.values import read_values
from upturn.types import Array, Samples

Decision = Literal["stage", "promoted", "rejected", "pending"]
DATA = "data"
T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """One evaluated model of the run, after a stage or after a round. Charts have a column for each."""

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
class PairedDifference:
    """Newer minus older model on the same prompts and noise, with its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PolicyTraining:
    """One training of the policy, started or not: a stage before the rounds, or one training of a round."""

    title: str
    unit: str


class Facts:
    """A run, opened for reading, at any time: what does not exist yet is empty."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.status: RunStatus = statuses.read(run)
        self.recipe = self.status.recipe
        self.records: dict[tuple[str, str], Record] = {(r.unit, r.step): r for r in run.records()}
        self._results: dict[Any, Any] = {}

    def computed(self, function: Callable[[Facts], T]) -> T:
        """``function`` of these facts, computed once."""
        if function not in self._results:
            self._results[function] = function(self)
        result: T = self._results[function]
        return result

    @cached_property
    def columns(self) -> list[Column]:
        """Every model that was evaluated, in order."""
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
        """The model of the newest promoted round, else of round 0."""
        rounds = {c.round: c for c in self.columns if c.round is not None}
        return rounds.get(newest_promoted({number: c.decision for number, c in rounds.items()}))

    @cached_property
    def trainings(self) -> list[PolicyTraining]:
        """All trainings of the recipe, in order; the last of a round gives the round's model."""
        zero, *rounds = self.status.rounds
        found = [PolicyTraining(stage.name, stage.unit) for stage in zero.stages]
        turns = self.recipe.rounds.train if self.recipe.rounds is not None else []
        for r in rounds:
            found += [PolicyTraining(f"round {r.round}: {turn.label}", f"{r.unit}/{turn.label}") for turn in turns[:-1]]
            last = f": {turns[-1].label}" if len(turns) > 1 else ""
            found.append(PolicyTraining(f"round {r.round}{last}", r.unit))
        return found

    def real_fraction(self, unit: str) -> float | None:
        """Real share of the weight of a training's data; an online training records its own."""
        found = self.info(unit, "mix").get("real_fraction", self.info(unit, "train").get("real_fraction"))
        return None if found is None else float(found)

    @cached_property
    def synthetic_in_real(self) -> tuple[float, float] | None:
        """(low, high) synthetic share of the data labelled real; None if the recipe does not require the check."""
        found = self.info(DATA, "provenance")
        return (float(found["low"]), float(found["high"])) if found else None

    @cached_property
    def metric_names(self) -> list[str]:
        """All that were measured, first those of the recipe in its order."""
        seen = dict.fromkeys(name for column in self.columns for name in column.metrics)
        return [*(n for n in self.recipe.metric_names() if n in seen),
                *(n for n in seen if n not in self.recipe.metric_names())]

    @cached_property
    def specs(self) -> dict[str, Mapping[str, Any]]:
        """Name in metrics.json -> the metric's part of the recipe."""
        parts = [metric for evaluation in self.recipe.evaluate for metric in evaluation.metrics]
        return dict(zip(self.recipe.metric_names(), parts, strict=True))

    @cached_property
    def headline(self) -> str | None:
        """The main metric: the gate's, else the first of the recipe that was measured."""
        if self.recipe.gate is not None:
            return self.recipe.gate.metric
        return self.metric_names[0] if self.metric_names else None

    def path(self, unit: str, name: str) -> Path | None:
        """A file of a unit; None if it does not exist."""
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

    def samples_by_id(self, unit: str, name: str, ids: list[str]) -> dict[str, Any]:
        """Id -> sample, for a few samples of a large table: only their images are decoded."""
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

    def difference(self, newer: Column, older: Column, metric: str) -> PairedDifference | None:
        """Paired by sample and clustered by prompt; None for metrics without a value for each sample."""
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
        return PairedDifference(float(np.nanmean(change)), low, high)

    def _groups(self, unit: str, metric: str) -> Array | None:
        evaluation = metric.rpartition("/")[0]
        path = self.path(unit, f"evaluation-{evaluation}.parquet" if evaluation else "evaluation.parquet")
        return None if path is None else np.asarray(read_table(path, ["group"]).column("group").to_numpy())

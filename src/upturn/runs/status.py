"""The state of a run, read from its directory alone: for the command line, the report and Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from upturn.config import recipe as recipes
from upturn.config.recipe import Recipe
from upturn.errors import UserError
from upturn.runs.steps import STEP_TITLES, step_group
from upturn.store.commit import Record
from upturn.store.promotion import newest_promoted
from upturn.store.run import Run
from upturn.store.units import model_unit, round_unit, stage_unit


@dataclass(frozen=True)
class RoundStatus:
    """One round; round 0 is the model after the stages before the rounds."""

    round: int
    unit: str
    state: str  # done | running | pending
    gate: Mapping[str, Any] | None
    real_fraction: float | None
    metrics: Mapping[str, Mapping[str, Any]]
    kept: int | None
    dropped: Mapping[str, int]
    seconds: Mapping[str, float]
    usd: float
    stages: tuple[StageStatus, ...] = ()


@dataclass(frozen=True)
class StageStatus:
    """A stage inside round 0."""

    name: str
    unit: str
    state: str
    real_fraction: float | None
    metrics: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class RunStatus:
    run: str
    folder: Path
    state: str
    message: str
    recipe: Recipe
    rounds: tuple[RoundStatus, ...]
    setup_seconds: Mapping[str, float] = field(default_factory=dict)  # by step, of a helper model by its unit

    @property
    def setup_usd(self) -> float:
        """Cost of the steps before the first stage: loading and preparing data, fitting helper models."""
        return sum(self.setup_seconds.values()) / 3600 * self.recipe.usd_per_hour

    @property
    def incumbent(self) -> RoundStatus:
        """The newest promoted round, else round 0."""
        return self.rounds[newest_promoted({r.round: (r.gate or {}).get("decision") for r in self.rounds})]

    def to_json(self) -> dict[str, Any]:
        """As ``upturn status --json`` prints it."""
        return {
            "run": self.run, "state": self.state, "message": self.message,
            "recipe": self.recipe.model_dump(mode="json", by_alias=True),
            "setup": {"seconds": dict(self.setup_seconds), "usd": self.setup_usd},
            "rounds": [_round_json(r) for r in self.rounds],
        }


def read(run: Run) -> RunStatus:
    """From the records and files of a run."""
    recipe = run.recipe
    records = {(record.unit, record.step): record for record in run.records()}
    price = recipe.usd_per_hour
    zero = _zero(run, recipe, records, price)
    count = recipe.rounds.count if recipe.rounds else 0
    later = [_round(run, number, records, price) for number in range(1, count + 1)]
    setup = {
        (step if unit == "data" else unit): record.seconds
        for (unit, step), record in records.items() if not unit.startswith("rounds/")
    }
    message = _missing(run, recipe) or run.state.message
    return RunStatus(run.folder.name, run.folder, run.state.state, message, recipe, (zero, *later), setup)


def _missing(run: Run, recipe: Recipe) -> str | None:
    """The votes that a waiting run still needs: they arrive without the run's knowledge."""
    if run.state.state != "waiting":
        return None
    from upturn.annotation.poll import waiting_for

    try:
        return waiting_for(run, recipe)
    except UserError:
        return None  # without the database, the stored message of the run is the best known


def _zero(run: Run, recipe: Recipe, records: Mapping[tuple[str, str], Record], price: float) -> RoundStatus:
    inner = []
    for stage in recipe.all_stages:
        unit = stage_unit(stage.name)
        seconds = _seconds(records, unit)
        state = _state(records, unit, "evaluate" if recipe.evaluate else "train")
        inner.append(StageStatus(stage.name, unit, state, _fraction(records, unit), _metrics(run, unit), seconds))
    total: dict[str, float] = {}
    for entry in inner:
        for step, spent in entry.seconds.items():
            total[step] = total.get(step, 0.0) + spent
    own = round_unit(0)
    state = _state(records, own, "base")
    if "policy" not in recipe.models:  # no model of rounds: the run is about models that are fitted
        state = _state(records, model_unit(recipe.main_model), "fit")
    if state == "pending" and any(s.state != "pending" for s in inner):
        state = "running"
    return RoundStatus(
        0, own, state, None, inner[-1].real_fraction if inner else None, _metrics(run, own), None, {}, total,
        sum(total.values()) / 3600 * price, tuple(inner),
    )


def _round(run: Run, number: int, records: Mapping[tuple[str, str], Record], price: float) -> RoundStatus:
    unit = round_unit(number)
    curated = records.get((unit, "curate"))
    gate = run.unit(unit) / "gate.json"
    seconds = _seconds(records, unit)
    return RoundStatus(
        number, unit, _state(records, unit, "gate"), json.loads(gate.read_text()) if gate.exists() else None,
        _fraction(records, unit), _metrics(run, unit), int(curated.counts["kept"]) if curated else None,
        dict(curated.info["dropped"]) if curated else {}, seconds, sum(seconds.values()) / 3600 * price,
    )


def _seconds(records: Mapping[tuple[str, str], Record], unit: str) -> dict[str, float]:
    """Seconds by step of a stage or round, with the units inside it: further trainings, refitted models."""
    found: dict[str, float] = {}
    for (where, step), record in records.items():
        if where == unit or where.startswith(f"{unit}/"):
            found[step_group(step)] = found.get(step_group(step), 0.0) + record.seconds
    return {step: found[step] for step in STEP_TITLES if step in found}


def _state(records: Mapping[tuple[str, str], Record], unit: str, last: str) -> str:
    if (unit, last) in records:
        return "done"
    return "running" if any(where == unit for where, _ in records) else "pending"


def _fraction(records: Mapping[tuple[str, str], Record], unit: str) -> float | None:
    record = records.get((unit, "mix")) or records.get((unit, "train"))  # an online training records its own fraction
    return None if record is None or "real_fraction" not in record.info else float(record.info["real_fraction"])


def _metrics(run: Run, unit: str) -> dict[str, Any]:
    path = run.unit(unit) / "metrics.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _brief(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: {part: m[part] for part in ("value", "low", "high", "n")} for name, m in metrics.items()}


def _round_json(r: RoundStatus) -> dict[str, Any]:
    gate = None
    if r.gate is not None:
        gate = {part: r.gate.get(part) for part in ("decision", "metric", "reason")}
    found: dict[str, Any] = {
        "round": r.round, "state": r.state, "gate": gate, "real_fraction": r.real_fraction,
        "metrics": _brief(r.metrics), "samples": {"kept": r.kept, "dropped": dict(r.dropped)},
        "cost": {"seconds": dict(r.seconds), "usd": r.usd},
    }
    if r.round == 0:
        found["stages"] = [
            {
                "name": s.name, "state": s.state, "real_fraction": s.real_fraction, "metrics": _brief(s.metrics),
                "cost": {"seconds": dict(s.seconds)},
            }
            for s in r.stages
        ]
    return found


def compare(a: RunStatus, b: RunStatus) -> dict[str, Any]:
    """Two runs: the keys in which their recipes differ, and each metric round by round.

    ``apart``: "a higher" or "b higher" if the intervals do not overlap, else "not apart".
    """
    rows = []
    for one, two in zip(a.rounds, b.rounds, strict=False):
        for name in [name for name in one.metrics if name in two.metrics]:
            rows.append({
                "round": one.round, "metric": name, "a": dict(one.metrics[name]), "b": dict(two.metrics[name]),
                "apart": _apart(one.metrics[name], two.metrics[name]),
            })
    changed = [line for line in recipes.differences(a.recipe, b.recipe) if not line.startswith("name: ")]
    return {"runs": [a.run, b.run], "recipe": changed, "metrics": rows}


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    ends = [m[part] for m in (a, b) for part in ("low", "high")]
    if any(end is None for end in ends):
        return "unknown"
    if a["low"] > b["high"]:
        return "a higher"
    return "b higher" if b["low"] > a["high"] else "not apart"

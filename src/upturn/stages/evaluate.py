"""A unit's policy measured on fixed prompts and noise, the same in every round, and its pictures for the grid."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upturn.assemble import Evaluator, Toolbox, load_model, prompt_for
from upturn.protocols import Policy
from upturn.stages.work import Done, Outcome, Work, prompt_keys
from upturn.store import tables
from upturn.store.values import read_values, write_values
from upturn.types import Array, Measurement, Prompt, Samples, concatenate


@dataclass(frozen=True)
class Shown:
    """``protocols.Evidence``."""

    samples: Samples
    rewards: Array
    tools: Toolbox
    seed: int
    settings: Any


def evaluate(work: Work, unit: str) -> Outcome:
    """metrics.json, values.parquet (a value a sample, for the gate), evaluation.parquet and grid.parquet."""
    if work.finished(unit, "evaluate"):
        return Done()
    policy = work.policy(unit)
    with work.committing(unit, "evaluate") as out, work.computing(out):
        measured: dict[str, Measurement] = {}
        for position, evaluator in enumerate(work.parts.evaluators):
            samples = _evaluation_samples(work, policy, evaluator)
            _, rewards = work.scores(samples)
            name = "evaluation.parquet" if position == 0 else f"evaluation-{evaluator.name}.parquet"
            tables.write_samples(out.path / name, samples)
            shown = Shown(samples, rewards, work.tools, work.key("measure", evaluator.name), evaluator.settings)
            for i, (metric_name, metric) in enumerate(evaluator.metrics.items()):
                work.watch.advance(i, len(evaluator.metrics), metric_name)
                measured[metric_name] = metric.measure(shown)
        (out.path / "metrics.json").write_text(json.dumps(_readable(measured), indent=1))
        write_values(out.path / "values.parquet", {n: m.values for n, m in measured.items()})
        _write_grid(work, policy, unit, out.path)
    return Done()


def _evaluation_samples(work: Work, policy: Policy, evaluator: Evaluator) -> Samples:
    prompts = [prompt_for(policy, p) for p in _cycled(list(work.tools.held_out.prompts), evaluator.prompts)]
    keys = prompt_keys(work.key("evaluate", evaluator.name), prompts, evaluator.candidates)
    return policy.sample(prompts, keys, evaluator.settings)


def _cycled(prompts: list[Prompt], count: int) -> list[Prompt]:
    return (prompts * -(-count // len(prompts)))[:count]


def grid_prompts(work: Work, policy: Policy) -> list[Prompt]:
    """Those that the recipe writes out, or the first different ones of the held-out part, in order of class."""
    grid = work.parts.recipe.grid
    if grid.texts:
        return [Prompt(text) for text in grid.texts]
    distinct = {p.id: p for p in (prompt_for(policy, p) for p in work.tools.held_out.prompts)}
    if len(distinct) == 1:
        return [next(iter(distinct.values()))] * grid.prompts
    ordered = sorted(distinct.values(), key=lambda p: -1 if p.label is None else p.label)
    return ordered[: grid.prompts]


def grid_samples(work: Work, policy: Policy) -> Samples:
    """The same prompts and noise whatever the round or checkpoint: the key has neither."""
    prompts = grid_prompts(work, policy)
    keys = prompt_keys(work.key("grid"), prompts, work.parts.recipe.grid.per_prompt)
    return policy.sample(prompts, keys, work.parts.evaluators[0].settings)


def _write_grid(work: Work, policy: Policy, unit: str, folder: Path) -> None:
    tables.write_samples(folder / "grid.parquet", grid_samples(work, policy))
    kept = sorted((work.run.unit(unit) / "checkpoints").glob("epoch-*"))
    if not kept:
        return
    series = []
    for place in kept:
        earlier: Any = load_model(work.parts, "policy", place, f"{policy.id}/{place.name}")
        made = grid_samples(work, earlier)
        series.append(made.with_fields(epoch=np.full(len(made), int(place.name.split("-")[1]))))
    tables.write_samples(folder / "previews.parquet", concatenate(series))


def _readable(measured: dict[str, Measurement]) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return None if math.isnan(value) or math.isinf(value) else float(value)

    return {
        name: {
            "value": number(m.value), "low": number(m.low), "high": number(m.high), "n": m.n, "note": m.note,
            "details": dict(m.details),
        }
        for name, m in measured.items()
    }


def read_measured(folder: Path) -> dict[str, Measurement]:
    """What ``evaluate`` left in a unit."""
    rows = json.loads((folder / "metrics.json").read_text())
    values = read_values(folder / "values.parquet")

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {
        name: Measurement(
            number(row["value"]), number(row["low"]), number(row["high"]), row["n"], values.get(name), row["note"],
            row["details"],
        )
        for name, row in rows.items()
    }

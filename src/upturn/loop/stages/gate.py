"""Promote the new model only if it is better beyond chance and every guard holds."""

from __future__ import annotations

import json
from dataclasses import asdict

from upturn.loop.gate import decide, spend
from upturn.loop.stages.certificate import certificate
from upturn.loop.stages.context import Done, Outcome, Work, round_unit
from upturn.loop.stages.evaluate import read_measured
from upturn.loop.stages.forecast import forecast_after
from upturn.store import parquet_tables
from upturn.types import Array


def gate(work: Work, unit: str, number: int, incumbent: str) -> Outcome:
    """rounds/NNN/gate.json: the decision, the test behind it, each guard against the fixed anchor; certificate.json."""
    if work.finished(unit, "gate"):
        return Done()
    recipe = work.parts.recipe
    assert recipe.rounds is not None
    with work.committing(unit, "gate") as out:
        if recipe.gate is None:
            found = {"decision": "promoted", "metric": None, "reason": "no gate was asked for: every round is taken"}
        else:
            new = read_measured(work.run.unit(unit))
            old = read_measured(work.run.unit(incumbent))
            anchor = read_measured(work.run.unit(round_unit(0)))
            decision = decide(
                recipe.gate.metric, new, old, anchor,
                better=_better(work), clusters=_clusters(work, unit),
                alpha=spend(recipe.gate.alpha, recipe.rounds.count, number),
                guards=recipe.gate.guards, key=work.key("gate", number),
            )
            found = asdict(decision)
        found["incumbent"] = incumbent
        (out.path / "gate.json").write_text(json.dumps(found, indent=1))
        with work.computing(out):
            certified = certificate(work, unit, incumbent) | {"foreseen": forecast_after(work, unit, number)}
        (out.path / "certificate.json").write_text(json.dumps(certified, indent=1))
        out.info.update(decision=found["decision"], reason=found["reason"], incumbent=incumbent)
        if certified["word"]:
            out.info["certificate"] = certified["word"]
    return Done()


def _better(work: Work) -> dict[str, str]:
    return {name: metric.better for e in work.parts.evaluators for name, metric in e.metrics.items()}


def _clusters(work: Work, unit: str) -> Array:
    """(N,) the prompt of each evaluation sample of the gate's metric: candidates of one prompt are not independent."""
    assert work.parts.recipe.gate is not None
    name = work.parts.recipe.gate.metric
    file = "evaluation.parquet" if "/" not in name else f"evaluation-{name.split('/')[0]}.parquet"
    return parquet_tables.read_samples(work.run.unit(unit) / file).group

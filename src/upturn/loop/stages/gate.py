"""Promote the new model only if it is better beyond chance and every guard holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from upturn.loop.gate import decide, spend
from upturn.loop.run_context import RunContext
from upturn.loop.stages.certificate import certificate
from upturn.loop.stages.evaluate import evaluation_file, measure, read_measured
from upturn.loop.stages.forecast import forecast_after
from upturn.loop.stages.outcome import Done, Outcome
from upturn.store import parquet_tables
from upturn.store.columns import read_table
from upturn.store.promotion import SKIPPED
from upturn.store.units import round_unit
from upturn.types import Array, Measurement


def gate(context: RunContext, unit: str, number: int, incumbent: str) -> Outcome:
    """rounds/NNN/gate.json: the decision, the test behind it, each guard against the fixed anchor; certificate.json."""
    if context.finished(unit, "gate"):
        return Done()
    recipe = context.parts.recipe
    assert recipe.rounds is not None
    with context.committing(unit, "gate") as out:
        if recipe.gate is None:
            found = {"decision": "promoted", "metric": None, "reason": "no gate is configured: every round is promoted"}
        else:
            new = read_measured(context.run.unit(unit))
            old = _as_many(context, incumbent, unit, out.path)
            anchor = _as_many(context, round_unit(0), unit, out.path)
            decision = decide(
                recipe.gate.metric, new, old, anchor,
                better=_better(context), clusters=_clusters(context, unit),
                alpha=spend(recipe.gate.alpha, recipe.rounds.count, number),
                guards=recipe.gate.guards, key=context.key("gate", number),
            )
            found = asdict(decision)
        found["incumbent"] = incumbent
        (out.path / "gate.json").write_text(json.dumps(found, indent=1))
        with context.computing(out):
            certified = certificate(context, unit, incumbent) | {"foreseen": forecast_after(context, unit, number)}
        (out.path / "certificate.json").write_text(json.dumps(certified, indent=1))
        out.info.update(decision=found["decision"], reason=found["reason"], incumbent=incumbent)
        if certified["word"]:
            out.info["certificate"] = certified["word"]
    return Done()


def _as_many(context: RunContext, older: str, unit: str, folder: Path) -> dict[str, Measurement]:
    """What was measured of an older model; measured again where the size of an evaluation has changed since."""
    def sizes(of: str) -> list[int]:
        paths = [context.run.unit(of) / evaluation_file(context, each) for each in context.parts.evaluators]
        if of == round_unit(0) and not all(path.exists() for path in paths):
            # a run of an earlier version linked the first evaluation alone
            record = context.run.done(of, "base")
            assert record is not None
            paths = [context.run.unit(record.info["from"]) / path.name for path in paths]
        return [len(read_table(path, ["id"])) for path in paths]

    if sizes(older) == sizes(unit):
        return read_measured(context.run.unit(older))
    again = folder / f"measured-again-{older.replace('/', '-')}"
    if not again.exists():
        again.mkdir()
        measure(context, context.policy(older), context.parts.evaluators, again, keep_samples=False)
    return read_measured(again)


def skip(context: RunContext, unit: str, incumbent: str, reason: str) -> Outcome:
    """rounds/NNN/gate.json of a round that had nothing to learn from: the incumbent stays, and the reason is kept."""
    if context.finished(unit, "gate"):
        return Done()
    with context.committing(unit, "gate") as out:
        found = {"decision": SKIPPED, "metric": None, "reason": reason, "incumbent": incumbent}
        (out.path / "gate.json").write_text(json.dumps(found, indent=1))
        out.info.update(decision=SKIPPED, reason=reason, incumbent=incumbent)
    context.observer.note(f"{unit} is skipped: {reason}")
    return Done()


def _better(context: RunContext) -> dict[str, str]:
    return {name: metric.better for e in context.parts.evaluators for name, metric in e.metrics.items()}


def _clusters(context: RunContext, unit: str) -> Array:
    """(N,) the prompt of each evaluation sample of the gate's metric: candidates of one prompt are not independent."""
    assert context.parts.recipe.gate is not None
    name = context.parts.recipe.gate.metric
    file = "evaluation.parquet" if "/" not in name else f"evaluation-{name.split('/')[0]}.parquet"
    return parquet_tables.read_samples(context.run.unit(unit) / file).group

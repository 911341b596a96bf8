"""Measures the checkpoints of one training, each with the same prompts and noise."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upturn import seeds
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.loop.assembly import load_model
from upturn.loop.run_context import RunContext
from upturn.loop.stages.evaluate import measure, read_measured
from upturn.loop.stages.outcome import Done, Outcome
from upturn.statistics.consistency import consistency
from upturn.statistics.plateau import plateau
from upturn.store import files, parquet_tables
from upturn.store.animation import animated
from upturn.store.checkpoints import tree_hash
from upturn.store.columns import read_table
from upturn.types import Array, Measurement, Samples, concatenate

STEP, SUMMARY = "checkpoints", "epochs.json"
_FILES = ("metrics.json", "values.parquet", "grid.parquet")
_PLACES = 4  # digits of an epoch that is no whole number: a training of so many steps may end within one


@dataclass(frozen=True)
class Moment:
    """A checkpoint, or the end of the training, and the folder of its measurements."""

    epoch: float
    folder: Path


def checkpoints(context: RunContext, unit: str, spec: Training) -> Outcome:
    """epoch-NNNN/ (metrics, values, grid) for each listed epoch; then epochs.json, previews.parquet and animations/.

    Every epoch is a step of its own: a kill costs the one that was being measured.
    """
    if not spec.checkpoint_epochs:
        return Done()
    if not context.finished(unit, STEP):
        _measure_all(context, unit, spec)
    if not context.follower:
        _keep(context, unit)
    return Done()


def _measure_all(context: RunContext, unit: str, spec: Training) -> None:
    kept = sorted((context.run.unit(unit) / "checkpoints").glob("epoch-*"))
    missed = sorted(set(spec.checkpoint_epochs) - {_epoch(place) for place in kept})
    if missed:
        epochs = ", ".join(map(str, missed))
        context.observer.note(f"{unit}: the training ended before epoch {epochs}: no such checkpoint")
    for place in kept:
        _measured(context, unit, place)
    moments = _moments(context, unit, kept)
    with context.committing(unit, STEP) as out, context.computing(out):
        grids = [parquet_tables.read_samples(moment.folder / "grid.parquet") for moment in moments]
        plateaus = _plateaus(context, unit, moments)
        found: dict[str, Any] = {
            "epochs": [{"epoch": m.epoch, "metrics": _figures(m.folder)} for m in moments],
            "plateau": plateaus, "headline": _headline(context, plateaus),
            "consistency": _steadiness(context, unit, moments, grids),
        }
        (out.path / SUMMARY).write_text(files.to_json(found), encoding="utf-8")
        listed = [(m, grid) for m, grid in zip(moments, grids, strict=True) if m.folder.name.startswith("epoch-")]
        if listed:
            series = [grid.with_fields(epoch=np.full(len(grid), int(m.epoch))) for m, grid in listed]
            parquet_tables.write_samples(out.path / "previews.parquet", concatenate(series))
        _animate(grids, out.path / "animations")


def _keep(context: RunContext, unit: str) -> None:
    """Weights beyond what the recipe keeps are removed, and the removal is recorded; what was measured stays."""
    keep = context.parts.recipe.keep.checkpoints
    if keep == "all":
        return
    found = files.read_json(context.run.unit(unit) / SUMMARY)
    name = found["headline"]
    at = found["plateau"][name]["plateau"] if keep == "plateau" and name else None
    # the end of a training may lie within an epoch: its weights are the model's own, not a checkpoint's
    kept = {f"epoch-{int(at):04d}"} if at is not None and at == int(at) else set()
    for gone in context.run.prune_checkpoints(unit, kept, f"keep: checkpoints: {keep}"):
        context.observer.note(f"{unit}: the weights of {gone.name.rpartition('/')[2]} are removed ({gone.reason})")


def _epoch(place: Path) -> int:
    return int(place.name.split("-")[1])


def _measured(context: RunContext, unit: str, place: Path) -> None:
    """One checkpoint; the last one may be the model that the training ended with: that is measured already."""
    step = place.name
    if context.finished(unit, step):
        return
    record = context.run.done(unit, "train")
    assert record is not None
    with context.committing(unit, step) as out, context.computing(out):
        into = out.path / step
        into.mkdir()
        if tree_hash(place) == record.files["model"]:
            for name in _FILES:
                os.link(context.run.unit(unit) / name, into / name)
            return
        earlier: Any = load_model(context.parts, "policy", place, f"{context.model_id(unit)}/{step}")
        context.tools.models["policy"] = earlier
        try:
            chosen = [evaluator for evaluator in context.parts.evaluators if evaluator.checkpoints]
            measure(context, earlier, chosen, into, keep_samples=False)
        finally:
            del context.tools.models["policy"]  # the next use loads the policy of a unit


def _moments(context: RunContext, unit: str, kept: Sequence[Path]) -> list[Moment]:
    """In order of epoch, with the end of the training where the last checkpoint is not that."""
    folder = context.run.unit(unit)
    found = [Moment(float(_epoch(place)), folder / place.name) for place in kept]
    record = context.run.done(unit, "train")
    assert record is not None
    last = record.info.get("epochs")
    if last is not None and not any(moment.epoch == last for moment in found):
        found.append(Moment(round(float(last), _PLACES), folder))
    return found


def _figures(folder: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((folder / "metrics.json").read_text())
    return {name: {part: row[part] for part in ("value", "low", "high", "n", "note")} for name, row in rows.items()}


def _plateaus(context: RunContext, unit: str, moments: Sequence[Moment]) -> dict[str, Any]:
    """Of each metric that has a better side: best, plateau, within, loss, level, how; epochs instead of places."""
    every = [read_measured(moment.folder) for moment in moments]
    out: dict[str, Any] = {}
    for evaluator in context.parts.evaluators:
        if not evaluator.checkpoints:
            continue
        for name, metric in evaluator.metrics.items():
            measured: list[Measurement] = [found[name] for found in every]
            curve = plateau(measured, metric.better, context.key("plateau", unit, name), _prompts(context, unit, name))
            if curve is not None:
                out[name] = asdict(curve) | {
                    "best": moments[curve.best].epoch, "plateau": moments[curve.plateau].epoch,
                    "within": [moments[place].epoch for place in curve.within],
                }
    return out


def _headline(context: RunContext, plateaus: Mapping[str, Any]) -> str | None:
    """The metric that names the plateau: the gate's, else the first of the recipe that has a better side."""
    recipe = context.parts.recipe
    wanted = [recipe.gate.metric] if recipe.gate is not None else []
    return next((name for name in (*wanted, *recipe.metric_names()) if name in plateaus), None)


def _prompts(context: RunContext, unit: str, metric: str) -> Array:
    """(N,) the prompt of each evaluation sample: the same at every checkpoint."""
    name = metric.split("/")[0] if "/" in metric else ""
    path = context.run.unit(unit) / (f"evaluation-{name}.parquet" if name else "evaluation.parquet")
    return np.asarray(read_table(path, ["group"]).column("group").to_numpy())


def _steadiness(
    context: RunContext, unit: str, moments: Sequence[Moment], grids: Sequence[Samples]
) -> list[dict[str, Any]] | None:
    """From each checkpoint to the next, or null where seeds of one prompt cannot be compared."""
    per_prompt = context.parts.recipe.grid.per_prompt
    if grids[0].kind == "text" or per_prompt < 2 or len(grids) < 2:
        return None
    try:
        seen = [context.tools.embed(grid) for grid in grids]
    except UserError as refused:
        context.observer.note(f"{unit}: the consistency of the images is not measured: {refused.what}")
        return None
    cells = [rows.reshape(-1, per_prompt, rows.shape[1]) for rows in seen]
    out = []
    for place, (before, after) in enumerate(itertools.pairwise(cells)):
        found = consistency(before, after, int(seeds.fold(context.key("consistency", unit), place)[0]))
        if found is not None:
            out.append({"from": moments[place].epoch, "to": moments[place + 1].epoch, **asdict(found)})
    return out or None


def _animate(grids: Sequence[Samples], folder: Path) -> None:
    """NNN.webp for each prompt of the grid, from the first checkpoint to the last."""
    if grids[0].kind != "image" or len(grids) < 2:
        return
    folder.mkdir()
    for group in np.unique(grids[0].group).tolist():
        frames = [grid.content[grid.group == group] for grid in grids]
        (folder / f"{group:03d}.webp").write_bytes(animated(frames))

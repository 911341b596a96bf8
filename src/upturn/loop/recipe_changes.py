"""Which keys of a recipe may change when a run is resumed: each key with the first steps that it affects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from upturn.config.recipe import Recipe, changed_keys, models_in, to_yaml
from upturn.errors import UserError
from upturn.observer import Observer
from upturn.store import files
from upturn.store.commit import STAGES, Record
from upturn.store.new_run import IDENTITY, RECIPE
from upturn.store.run import Run
from upturn.store.units import DATA, model_unit, stage_unit, unit_round

EDITS = "recipe-edits.jsonl"  # of a run's folder: what was changed on resume, and when
_TRAINS = frozenset({"sample", "mix", "train", "fit", "judge"})  # steps whose unfinished work an edit throws away

Steps = tuple[str, ...]
FREE: Steps = ()  # nothing that is committed depends on it

_TRAINING: dict[str, Steps] = {
    "objective": ("mix", "train"), "adapter": ("train",), "epochs": ("train",), "steps": ("train",),
    "batch_size": ("train",), "micro_batch": ("train",), "pack_tokens": ("train",), "learning_rate": ("train",),
    "schedule": ("train",), "warmup": ("train",), "weight_decay": ("train",), "clip": ("train",),
    "optimizer": ("train",), "ema": ("train",), "precision": ("train",), "held_out_every": ("train",),
    "patience": ("train",), "kl_limit": ("train",), "online": ("train",), "checkpoint_epochs": ("train",),
    "save_every": FREE,
}
_FITTING: dict[str, Steps] = {name: steps and ("fit",) for name, steps in _TRAINING.items()}

AFFECTS: dict[str, dict[str, Steps]] = {
    "Recipe": {
        "name": FREE, "seed": ("load",), "data": ("load",), "captions": ("load",), "provenance": ("provenance",),
        "filter": ("filter", "mix", "train"), "score_words": ("score_words", "mix", "train", "evaluate"),
        "models": ("fit",), "features": ("provenance", "filter", "curate", "evaluate", "checkpoints"),
        "stages": ("mix", "train", "base"), "rounds": ("sample", "train"), "evaluate": ("evaluate",),
        "gate": ("gate",), "grid": FREE, "keep": FREE, "usd_per_hour": FREE, "threads": FREE, "catalog": FREE,
        "tracker": FREE,
    },
    "Stage": {**_TRAINING, "name": ("mix", "train"), "where": ("mix", "train")},
    "Turn": {**_TRAINING, "name": ("mix", "train")},
    "Fit": {**_FITTING, "split": ("fit",), "where": ("fit",)},
    "Refit": {**_FITTING, "score": ("judge",), "prompts": ("judge",), "base": ("fit",)},
    "Model": {"name": ("fit", "judge", "train"), "fit": ("fit",), "refit": ("judge",)},
    "Online": {"prompts": ("train",), "candidates": ("train",), "settings": ("train",), "where": ("train",),
               "passes": ("train",)},
    "Rounds": {
        "count": FREE, "sample": ("sample",), "people": ("vote",), "score": ("evaluate", "score", "train"),
        "curate": ("curate",), "mix": ("mix",), "train": ("mix", "train"), "start": ("train",),
    },
    "Sampling": {"prompts": ("sample",), "candidates": ("sample",), "settings": ("sample",), "where": ("sample",),
                 "texts": ("sample",), "shard": ("sample",)},
    "People": {
        "mode": ("vote",), "prompts": ("vote",), "candidates": ("vote",), "overlap": ("vote",), "quota": ("vote",),
        "attributes": ("vote",), "repeats": ("vote",), "rule": ("vote",), "least_reliability": ("vote",),
        "most_share": ("vote",), "seconds": FREE, "database": ("vote",), "simulated": FREE,
    },
    "Voters": {"score": FREE, "count": FREE, "temperature": FREE, "careless": FREE, "seed": FREE},
    "Mix": {"policy": ("mix",), "lambda_": ("mix",), "weights": ("mix",), "where": ("sample", "mix"),
            "real": ("mix",), "repeat": ("mix",), "size": ("mix",)},
    "Filter": {"score": ("filter",), "curate": ("filter",)},
    "ScoreWords": {"score": ("score_words",), "levels": ("score_words",), "shares": ("score_words",),
                   "ask": ("sample", "evaluate")},
    "Provenance": {"trusted": ("provenance",), "runs": ("provenance",), "at_most": ("provenance",)},
    "Evaluation": {
        "name": ("evaluate",), "prompts": FREE, "candidates": FREE, "settings": ("evaluate",), "where": ("evaluate",),
        "captions": ("load",), "checkpoints": ("checkpoints",), "metrics": ("evaluate",),
    },
    "Gate": {"metric": ("gate",), "alpha": ("gate",), "guards": ("gate",), "anchor": ("gate",)},
    "Grid": {"prompts": FREE, "per_prompt": FREE, "texts": FREE, "wordings": FREE},
    "Keep": {"weights": FREE, "checkpoints": FREE, "disk_gb": FREE},
}
"""Class of the schema -> field -> the first steps that depend on it; a part that came or went has its parent's."""

_NOTES = {  # what a free key changes from here on
    ("Rounds", "count"): "rounds that were gated keep the level that they were tested at",
    ("Evaluation", "prompts"): "a gate measures the models before it again, with as many prompts",
    ("Evaluation", "candidates"): "a gate measures the models before it again, with as many candidates",
    ("Recipe", "threads"): "from here on the results may not be the same bytes",
    ("Grid", ""): "the grids of the models so far stay as they are",
}


@dataclass(frozen=True)
class KeyChange:
    """A changed key: its class and field in the schema, the units that it is about, and the first steps affected.

    ``unit`` is that of a stage or a model; "" for what is about all units, ``from_round`` on.
    """

    text: str
    owner: str
    field: str
    steps: Steps
    unit: str = ""
    from_round: int = -1

    @property
    def note(self) -> str:
        found = _NOTES.get((self.owner, self.field)) or _NOTES.get((self.owner, ""), "")
        return f"{self.text}{f'; {found}' if found else ''}"

    def touched(self, records: Sequence[Record]) -> Record | None:
        """The first committed step that depends on the key."""
        return next((record for record in records if self._is_about(record)), None)

    def _is_about(self, record: Record) -> bool:
        if record.step not in self.steps:
            return False
        if self.unit:
            return record.unit == self.unit or record.unit.startswith(f"{self.unit}/")
        return unit_round(record.unit) >= self.from_round


def key_changes(old: Recipe, new: Recipe) -> list[KeyChange]:
    """Every key in which two recipes differ. A change that no committed step depends on has no ``touched``."""
    return [_change(key, f"{key}: {values[0]} -> {values[1]}", old) for key, values in changed_keys(old, new).items()]


def _change(key: str, text: str, old: Recipe) -> KeyChange:
    path = key.split(".")
    owner, name, steps = _owner(path)
    if path[0] == "stages":
        place = int(path[1]) if len(path) > 1 and path[1].isdigit() else 0
        if place >= len(old.stages):  # a stage more, after the last
            return KeyChange(text, owner, name, steps and ("base",))
        return KeyChange(text, owner, name, steps, stage_unit(old.stages[place].name))
    if path[0] == "models" and len(path) > 1:
        if path[1] == "policy":
            return KeyChange(text, owner, name, ("train",), from_round=0)
        within_rounds = path[1] in old.models and old.models[path[1]].refit is not None
        if within_rounds:
            return KeyChange(text, owner, name, steps and ("judge", "fit"), from_round=1)
        return KeyChange(text, owner, name, steps, model_unit(path[1]))
    if path[0] in ("rounds", "gate") and name != "score":
        return KeyChange(text, owner, name, steps, from_round=1)
    if (owner, name) == ("Rounds", "score"):
        return KeyChange(text, owner, name, steps, from_round=0)
    return KeyChange(text, owner, name, steps)


def _owner(path: Sequence[str]) -> tuple[str, str, Steps]:
    """The class and field that a key is in, as deep as the schema has classes, and the steps of the field."""
    model: type[BaseModel] = Recipe
    found = ("Recipe", path[0], AFFECTS["Recipe"][path[0]])
    for place, part in enumerate(path):
        if place == 1 and path[0] == "models":
            continue  # the name of a model
        by_name = {item.alias or name: name for name, item in model.model_fields.items()}
        if part not in by_name:
            if place == 2 and path[0] == "models":
                return "Model", "name", AFFECTS["Model"]["name"]  # a field of the component
            continue  # a position in a list
        name = by_name[part]
        found = (model.__name__, name, AFFECTS[model.__name__][name])
        inner = models_in(model.model_fields[name].annotation)
        if not inner:
            return found
        model = inner[0]
    return found


def apply_changes(run: Run, recipe: Recipe, observer: Observer) -> Run:
    """The run with the new recipe, where what is committed does not depend on the change; the change is recorded.

    Before the first committed training everything may change: the data is then loaded again. Raises UserError that
    names the first committed step that a key would change, and how to start from the run instead.
    """
    found = key_changes(run.recipe, recipe)
    if not found:
        return run
    records = run.records()
    _check_count(found, recipe, records, run)
    touched = [(change, record) for change in found if (record := change.touched(records)) is not None]
    again = touched and not any("model" in record.files for record in records)
    if touched and not again:
        raise _refused(run, *touched[0], found)
    run.lock()
    if again:
        for unit in sorted({record.unit for record in records}):
            files.remove(run.folder / unit / STAGES)
            files.remove(run.folder / unit)
        observer.note("nothing was trained yet: the run begins again with the changed recipe")
    if again or any(_TRAINS & set(change.steps) for change in found):
        for folder in _unfinished(run):
            files.remove(folder)
            observer.note(f"{folder.parent.relative_to(run.folder)}: its unfinished step starts over")
    for change in found:
        observer.note(f"changed on resume: {change.note}")
    _record(run, recipe, [change.text for change in found])
    run.close()
    return Run.open(run.folder)


def _check_count(found: Sequence[KeyChange], recipe: Recipe, records: Sequence[Record], run: Run) -> None:
    """Fewer rounds than have begun are refused."""
    if not any((change.owner, change.field) == ("Rounds", "count") for change in found) or recipe.rounds is None:
        return
    begun = max((unit_round(record.unit) for record in records), default=0)
    if recipe.rounds.count < begun:
        raise UserError(
            f"rounds.count is {recipe.rounds.count}, and round {begun} has begun", where=str(run.folder),
            fix=f"Raise it, or start a new run: --name NEW --from {run.folder} --round {recipe.rounds.count}.",
        )


def _refused(run: Run, change: KeyChange, record: Record, found: Sequence[KeyChange]) -> UserError:
    records = run.records()
    free = [other.text.split(":")[0] for other in found if other.touched(records) is None]
    before = max(0, unit_round(record.unit) - 1)
    fork = f"start a new run: --name NEW --from {run.folder} --round {before}" if unit_round(record.unit) > 0 else (
        "start a new run under another --name")
    may = f" These may change: {', '.join(free)}." if free else ""
    return UserError(
        f"the run was started with another recipe: {change.text}. It would change {record.step} of {record.unit}, "
        "which is done", where=str(run.folder), fix=f"Undo the change, or {fork}.{may}",
    )


def _unfinished(run: Run) -> Iterator[Any]:
    for name in (".train-progress", ".sample-progress"):
        yield from sorted(path for pattern in (DATA, "models/*", "rounds/*", "rounds/*/*")
                          for path in run.folder.glob(f"{pattern}/{name}"))


def _record(run: Run, recipe: Recipe, changed: Sequence[str]) -> None:
    """The new recipe in the run's folder, after a line that says what it was changed from."""
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "changed": list(changed)}
    with files.disk_errors(run.folder):
        path = run.folder / EDITS
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        files.write_text(path, before + json.dumps(line, ensure_ascii=False) + "\n")
        identity: Mapping[str, Any] = files.read_json(run.folder / IDENTITY)
        if identity.get("catalog") != recipe.catalog and any(text.startswith("catalog: ") for text in changed):
            files.write_text(run.folder / IDENTITY, files.to_json({**identity, "catalog": recipe.catalog}))
        files.write_text(run.folder / RECIPE, to_yaml(recipe))

"""A run's samples, preferences or model in the formats of other tools, with a README.md that documents them."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from upturn.errors import UserError
from upturn.export.card import Exported, write_card, write_lines
from upturn.export.preference_pairs import write_preferences
from upturn.export.preferences_voted import votes_so_far, write_voted
from upturn.export.vote_files import write_votes
from upturn.store import files
from upturn.store.columns import read_table, with_notes, write_table
from upturn.store.files import tree_hash
from upturn.store.parquet_tables import SAMPLES, SCORES, SELECTIONS, read_scores, read_selections
from upturn.store.run import Run
from upturn.store.units import is_round, unit_round

if TYPE_CHECKING:
    import pyarrow as pa

What = Literal["samples", "votes", "preferences", "model", "adapters"]


Write = Callable[[Run, str, Path], None]  # of a unit's model, into a new folder


def _copied(run: Run, unit: str, folder: Path) -> None:
    shutil.copytree(run.model_folder(unit), folder)


def export(
    run: Run, what: What, to: Path | str, write_model: Write = _copied, model: str | None = None
) -> Exported:
    """Write ``to`` (a new or empty folder), whole or not at all.

    samples      samples.parquet (with images) and samples.jsonl (without): all but held-out data, with
                 ancestry, scores and selections
    votes        votes.parquet and votes.jsonl, and of texts what Argilla and Label Studio read
    preferences  preferences.jsonl, or .parquet for images: prompt, chosen, rejected: from votes, where there
                 did (completions.jsonl and ranked.jsonl beside it), else the candidates of highest and lowest reward of
                 every prompt of every round
    model        model/, the incumbent's, as ``write_model`` writes it; of a run without a policy the model that it
                 trained. ``model`` names another one of the recipe: a reward model, a classifier
    adapters     adapters/, the incumbent's without its base, as ``write_model`` writes them

    Raises UserError where there is nothing of the kind, or ``to`` is not empty.
    """
    if what not in get_args(What):
        raise UserError(f"cannot export '{what}'", where="what", fix=f"One of: {', '.join(get_args(What))}.")
    writers: dict[What, Callable[[Run, Path], Exported]] = {
        "samples": _samples, "votes": write_votes, "preferences": _preferences,
        "model": partial(_model, write_model, model), "adapters": partial(_adapters, write_model),
    }
    to = Path(to)
    with _whole(to) as draft:
        done = writers[what](run, draft)
    return replace(done, folder=to)


@contextmanager
def _whole(to: Path) -> Iterator[Path]:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError("this folder is not empty", where=str(to), fix="Choose a new one.")
    draft = to.resolve().with_name(f".{to.resolve().name}.new")
    with files.disk_errors(to):
        files.make_folder(draft.parent)
        files.remove(draft)
        draft.mkdir()
        try:
            yield draft
            files.sync_tree(draft)
            os.rename(draft, to)
        except BaseException:
            files.remove(draft)
            raise


def _preferences(run: Run, folder: Path) -> Exported:
    votes = votes_so_far(run)
    return write_preferences(run, folder) if votes is None else write_voted(run, votes, folder)


# samples


def _samples(run: Run, folder: Path) -> Exported:
    import pyarrow as pa

    units = [unit for unit in ["data", *run.round_units()] if (run.unit(unit) / SAMPLES).is_file()]
    if not units:
        raise UserError("this run has no samples yet", where=str(run.folder))
    held = 0
    tables: list[pa.Table] = []
    for unit in units:
        table = _with_ancestry(run, unit, read_table(run.unit(unit) / SAMPLES))
        if "split" in table.column_names:
            train = np.array([split != "held_out" for split in table.column("split").to_pylist()], dtype=bool)
            held += int((~train).sum())
            table = table.filter(pa.array(train))
        tables.append(table.replace_schema_metadata(None))
    whole = pa.concat_tables(_alike(tables), promote_options="default")
    write_table(folder / "samples.parquet", with_notes(whole, {"table": "export"}))
    text = whole.drop_columns([name for name in ("image",) if name in whole.column_names])
    write_lines(folder / "samples.jsonl", text.to_pylist())
    origins = Counter(whole.column("origin").to_pylist())
    counts = {f"{origin} samples": origins[origin] for origin in sorted(origins)}
    left = {"held-out data": held} if held else {}
    notes = "Columns: the samples' own; `unit`, `round`: where a sample is in the run; `model_unit`, " \
        "`model_parent`: the model that generated it and that model's parent; `kept`, `reason`: the selection; " \
        "`score_<scorer>`: the scores, null where unscored. Real rows have a `source` and none of these."
    if "image" in whole.column_names:
        notes += " Images are in the Parquet file only."
    write_card(folder, run, "Samples", counts, left, notes, "samples.parquet")
    return Exported(folder, counts, left)


def _with_ancestry(run: Run, unit: str, table: pa.Table) -> pa.Table:
    """The table with the columns that the card names."""
    import pyarrow as pa

    n, ids = len(table), table.column("id").to_pylist()
    places = {str(record.info["model"]): record for record in reversed(run.records()) if "model" in record.files
              and "model" in record.info}
    makers = [places.get(source) for source in table.column("source").to_pylist()]
    added: dict[str, Any] = {
        "unit": pa.array([unit] * n, pa.string()),
        "round": pa.array([unit_round(unit) if unit != "data" else None] * n, pa.int64()),
        "model_unit": pa.array([maker.unit if maker else None for maker in makers], pa.string()),
        "model_parent": pa.array([maker.info.get("parent") if maker else None for maker in makers], pa.string()),
    }
    if (run.unit(unit) / SELECTIONS).is_file():
        selections = read_selections(run.unit(unit) / SELECTIONS, ids)
        if selections:
            reason = np.array([""] * n, dtype=object)
            for selection in selections:  # the first one that drops a sample gives the reason
                first = (reason == "") & ~selection.kept
                reason[first] = selection.reasons[first]
            added["kept"] = pa.array(np.all([selection.kept for selection in selections], axis=0))
            added["reason"] = pa.array(reason.tolist(), pa.string())
    if (run.unit(unit) / SCORES).is_file():
        for name, scores in read_scores(run.unit(unit) / SCORES, ids).items():
            added[f"score_{name}"] = pa.array(scores.values, mask=scores.unscored)
    for name, column in added.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, column)
    return table


def _alike(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Columns of one name and different types become text, so that all tables go into one file."""
    import pyarrow as pa

    types: dict[str, set[Any]] = {}
    for table in tables:
        for item in table.schema:
            types.setdefault(item.name, set()).add(item.type)
    mixed = {name for name, kinds in types.items() if len(kinds) > 1}
    out = []
    for table in tables:
        for name in mixed & set(table.column_names):
            as_text = pa.array([None if v is None else str(v) for v in table.column(name).to_pylist()], pa.string())
            table = table.set_column(table.column_names.index(name), name, as_text)
        out.append(table)
    return out


# model


def _unit_of(run: Run, model: str | None) -> str:
    """Where the newest weights of a model of the recipe are."""
    name = model or "policy"
    if model is None and run.incumbent() is None:  # no policy has been trained: a reward model or classifier may be
        name = run.recipe.main_model
    if model is not None and name not in run.recipe.models:
        there = ", ".join(run.recipe.models)
        raise UserError(f"the run has no model '{name}'", where="--model", fix=f"It has: {there}.")
    if name == "policy":
        unit = run.incumbent()
    else:
        fits = [record.unit for record in run.records() if record.step == "fit" and "model" in record.files]
        unit = next((unit for unit in reversed(fits) if unit.rpartition("/")[2] == name), None)
    if unit is None:
        raise UserError(f"this run has no model '{name}' yet", where=str(run.folder))
    return unit


def _model(write: Write, model: str | None, run: Run, folder: Path) -> Exported:
    unit = _unit_of(run, model)
    write(run, unit, folder / "model")
    counts = {"files": sum(path.is_file() for path in (folder / "model").rglob("*"))}
    others = sum("model" in record.files for record in run.records()) - 1
    left = {"weights of other units": others} if others else {}
    record = next(record for record in run.records(unit) if "model" in record.files)
    which = "the incumbent" if is_round(unit) and unit == run.incumbent() else "a model that the run fitted"
    notes = f"`model/` is that of `{unit}`, {which}: `{record.info.get('model')}`, started from " \
        f"`{record.info.get('parent')}`; SHA-256 of the folder `{tree_hash(folder / 'model')}`."
    write_card(folder, run, "Model", counts, left, notes, None)
    return Exported(folder, counts, left)


def _adapters(write: Write, run: Run, folder: Path) -> Exported:
    unit = run.incumbent()
    if unit is None:
        raise UserError("this run has no model yet", where=str(run.folder))
    write(run, unit, folder / "adapters")
    counts = {"files": sum(path.is_file() for path in (folder / "adapters").rglob("*"))}
    bases = sorted(path.name for path in folder.glob("base-of-*"))
    left = {} if bases else {"the base model of the adapters": 1}
    notes = f"`adapters/` are those of `{unit}`, the incumbent. " + (
        f"The models that they are on are in {', '.join(f'`{name}/`' for name in bases)}: their paths are in "
        "`adapter_config.json` and change with the folder. " if bases else
        "Their base is the model that the recipe names, which `adapter_config.json` names for language models. "
    ) + "'--what model' exports both as one."
    write_card(folder, run, "Adapters", counts, left, notes, None)
    return Exported(folder, counts, left)

"""Real data into the store, once, checked for leaks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from upturn import seeds
from upturn.data.captioning import captioned, texts
from upturn.data.split import check_leakage, example_keys
from upturn.errors import UserError
from upturn.loop.assembly import Assembly
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.tools import fitting
from upturn.store import parquet_tables
from upturn.store.units import DATA
from upturn.types import Splits, concatenate, objects

CAPTIONS = "captions"  # of a run's folder: what a captioning model wrote
SHARED = ".captions"  # beside the runs: what it wrote before there was a run


def worded(parts: Assembly, splits: Splits, folder: Path | None) -> tuple[Splits, dict[str, list[str]]]:
    """The source's two parts with the recipe's captions, and how evaluations word their prompts where they have their
    own: name -> a text for each held-out sample. ``folder`` caches captions that are expensive to generate.

    Raises UserError where the ``where:`` of an evaluation fits no held-out sample.
    """
    key = caption_key(parts)
    wordings: dict[str, list[str]] = {}
    notes: list[str] = []
    for evaluator in parts.evaluators:
        fitting(splits.held_out, evaluator.where, f"evaluate.{evaluator.name}")
        if evaluator.captions is not None:
            wordings[evaluator.name], messages = texts(evaluator.captions, splits.held_out, splits.classes, folder, key)
            notes += [f"evaluation '{evaluator.name}': {note}" for note in messages]
    if parts.captions is not None:
        splits = captioned(parts.captions, splits, folder, key)
    return replace(splits, notes=(*splits.notes, *notes)), wordings


def caption_key(parts: Assembly) -> int:
    return seeds.key(parts.recipe.seed, "captions")


def store_of(context: RunContext) -> Path:
    """The run's own folder of generated captions; those of an earlier 'upturn captions' are reused."""
    folder = context.run.folder / CAPTIONS
    before = context.run.folder.parent / SHARED
    for path in sorted(before.glob("*.jsonl")) if before.is_dir() else ():
        folder.mkdir(exist_ok=True)
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    return folder


def fitting_rows(parts: Assembly, splits: Splits) -> tuple[str, ...]:
    """What a language model that was trained before cuts or drops of the data; UserError where it refuses a row.

    Here and in a plan, so that a row that is too long, or a conversation that the chat template refuses, is found
    before the first step. A model from a config has its tokenizer from the data, and reads it at once.
    """
    name = parts.recipe.main_model
    policy = parts.model(name)
    if policy.kind != "text" or not parts.recipe.models[name].pretrained:
        return ()
    every = concatenate([splits.train, splits.held_out])
    rows = policy.as_tokens(every, splits.train, seeds.key(parts.recipe.seed, "build", name))
    return () if rows is None else rows.notes


def load(context: RunContext) -> Outcome:
    """Both parts into data/samples.parquet; a held-out sample that is also in the training part is refused."""
    if context.finished(DATA, "load"):
        return Done()
    with context.committing(DATA, "load") as out:
        splits, wordings = worded(context.parts, context.parts.source.load(), store_of(context))
        check_leakage(example_keys(splits.train), example_keys(splits.held_out), where="data")
        for note in (*splits.notes, *fitting_rows(context.parts, splits)):
            context.observer.note(note)
        name = context.parts.recipe.main_model
        policy = context.parts.recipe.models[name].spec
        if policy.get("classes") and splits.classes and policy["classes"] != len(splits.classes):
            raise UserError(
                f"the model has {policy['classes']} classes, the data {len(splits.classes)}",
                where=f"models.{name}.classes", fix=f"Write 'classes: {len(splits.classes)}'.",
            )
        parts = [
            part.with_fields(split=objects([name] * len(part)))
            for name, part in (("train", splits.train), ("held_out", splits.held_out))
        ]
        everything = concatenate(parts)
        if not context.parts.source.compares:  # without comparisons each sample is a group of its own
            everything = replace(everything, group=np.arange(len(everything)))
        parquet_tables.write_samples(out.path / "samples.parquet", everything)
        (out.path / "asked.json").write_text(json.dumps(wordings, ensure_ascii=False), encoding="utf-8")
        out.counts.update(train=len(splits.train), held_out=len(splits.held_out))
        out.info.update(classes=list(splits.classes), notes=list(splits.notes))
    return Done()

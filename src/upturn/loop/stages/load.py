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
from upturn.loop.stages.context import DATA, Done, Outcome, Work
from upturn.loop.tools import fitting
from upturn.store import parquet_tables
from upturn.types import Splits, concatenate, objects

CAPTIONS = "captions"  # of a run's folder: what a captioning model wrote
SHARED = ".captions"  # beside the runs: what it wrote before there was a run


def worded(parts: Assembly, splits: Splits, folder: Path | None) -> tuple[Splits, dict[str, list[str]]]:
    """The source's two parts with the recipe's captions, and how evaluations word their prompts where they have their
    own: name -> a text for each held-out sample. ``folder`` keeps what is dear to make.

    Raises UserError where the ``where:`` of an evaluation fits no held-out sample.
    """
    key = caption_key(parts)
    asked: dict[str, list[str]] = {}
    notes: list[str] = []
    for evaluator in parts.evaluators:
        fitting(splits.held_out, evaluator.where, f"evaluate.{evaluator.name}")
        if evaluator.captions is not None:
            asked[evaluator.name], said = texts(evaluator.captions, splits.held_out, splits.classes, folder, key)
            notes += [f"evaluation '{evaluator.name}': {note}" for note in said]
    if parts.captions is not None:
        splits = captioned(parts.captions, splits, folder, key)
    return replace(splits, notes=(*splits.notes, *notes)), asked


def caption_key(parts: Assembly) -> int:
    return seeds.key(parts.recipe.seed, "captions")


def store_of(work: Work) -> Path:
    """The run's own folder of written captions; those that 'upturn captions' made before it are taken over."""
    folder = work.run.folder / CAPTIONS
    before = work.run.folder.parent / SHARED
    for path in sorted(before.glob("*.jsonl")) if before.is_dir() else ():
        folder.mkdir(exist_ok=True)
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    return folder


def load(work: Work) -> Outcome:
    """Both parts into data/samples.parquet; a held-out sample that stands in the training part is refused."""
    if work.finished(DATA, "load"):
        return Done()
    with work.committing(DATA, "load") as out:
        splits, asked = worded(work.parts, work.parts.source.load(), store_of(work))
        check_leakage(example_keys(splits.train), example_keys(splits.held_out), where="data")
        for note in splits.notes:
            work.watch.note(note)
        policy = work.parts.recipe.models["policy"].spec
        if policy.get("classes") and splits.classes and policy["classes"] != len(splits.classes):
            raise UserError(
                f"the model has {policy['classes']} classes, the data {len(splits.classes)}",
                where="models.policy.classes", fix=f"Write 'classes: {len(splits.classes)}'.",
            )
        parts = [
            part.with_fields(split=objects([name] * len(part)))
            for name, part in (("train", splits.train), ("held_out", splits.held_out))
        ]
        everything = concatenate(parts)
        everything = replace(everything, group=np.arange(len(everything)))
        parquet_tables.write_samples(out.path / "samples.parquet", everything)
        (out.path / "asked.json").write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
        out.counts.update(train=len(splits.train), held_out=len(splits.held_out))
        out.info.update(classes=list(splits.classes), notes=list(splits.notes))
    return Done()

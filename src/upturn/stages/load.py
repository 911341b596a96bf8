"""Real data into the store, once, checked for leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from upturn.data.split import check_leakage, example_keys
from upturn.errors import UserError
from upturn.stages.work import DATA, Done, Outcome, Work
from upturn.store import tables
from upturn.types import concatenate, objects


def load(work: Work) -> Outcome:
    """Both parts into data/samples.parquet; a held-out sample that stands in the training part is refused."""
    if work.finished(DATA, "load"):
        return Done()
    with work.committing(DATA, "load") as out:
        splits = work.parts.source.load()
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
        tables.write_samples(out.path / "samples.parquet", everything)
        out.counts.update(train=len(splits.train), held_out=len(splits.held_out))
        out.info.update(classes=list(splits.classes), notes=list(splits.notes))
    return Done()

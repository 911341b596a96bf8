"""Round 0: the model after the last stage before the rounds, under the name that all rounds have."""

from __future__ import annotations

import os
import shutil

from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.store.units import round_unit


def base(context: RunContext, last: str) -> Outcome:
    """rounds/000/model and what was measured of it: links to the last stage's files, no second copy on disk."""
    unit = round_unit(0)
    if context.finished(unit, "base"):
        return Done()
    source = context.run.unit(last)
    with context.committing(unit, "base") as out:
        shutil.copytree(source / "model", out.path / "model", copy_function=os.link)
        measured = ("metrics.json", "values.parquet", "grid.parquet", "evaluation.parquet", "evaluation-*.parquet")
        for name in measured:  # without 'evaluate:' nothing is measured
            for path in sorted(source.glob(name)):
                os.link(path, out.path / path.name)
        record = context.run.done(last, "train")
        assert record is not None
        out.info.update(model=record.info["model"], parent=record.info["parent"], mixture=last)
        out.info["from"] = last
    return Done()

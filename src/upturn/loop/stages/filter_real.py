"""The real training data by the curators that candidates go through: what is good enough to be trained on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from upturn.data.groups import whole
from upturn.errors import RunError
from upturn.loop.run_context import RunContext
from upturn.loop.stages.curate import chosen
from upturn.loop.stages.outcome import Done, Outcome
from upturn.store import parquet_tables
from upturn.store.units import DATA
from upturn.types import Array, Samples, Selection, objects

_SAID = 3  # reasons that the note counts
_TORN = "another candidate of its comparison is dropped"


def filter_real(context: RunContext) -> Outcome:
    """data/scores.parquet and data/selections.parquet; the training part is from here on what was kept.

    The held-out part stays whole. RunError where nothing is kept, with the reasons.
    """
    filtering = context.parts.filtering
    assert filtering is not None
    if not context.finished(DATA, "filter"):
        train = context.tools.train
        with context.committing(DATA, "filter") as out, context.computing(out):
            found, rewards = context.judged(train, filtering.scorers)
            selections, alive, reasons = chosen(context, DATA, filtering.curators, train, rewards)
            if context.parts.source.compares:
                selections, alive = _whole_groups(train, selections, reasons)
            counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common(_SAID))
            if not len(alive):
                raise RunError(
                    f"the filter keeps none of {len(train):,} training samples: {counted}", where="filter",
                    fix="Loosen its curators.",
                )
            parquet_tables.write_scores(out.path / "scores.parquet", train, found)
            parquet_tables.write_selections(out.path / "selections.parquet", train, selections)
            out.counts.update(kept=len(alive), dropped=len(train) - len(alive))
            out.info["dropped"] = dict(reasons)
            if found and not np.isnan(rewards).all():
                out.info["reward"] = float(np.nanmean(rewards))
                if not np.isnan(rewards[alive]).all():
                    out.info["reward_kept"] = float(np.nanmean(rewards[alive]))
        dropped = f"; dropped: {counted}" if counted else ""
        context.observer.note(f"filter: {len(alive):,} of {len(train):,} training samples kept{dropped}")
    context.narrow()
    return Done()


def _whole_groups(train: Samples, selections: list[Selection], reasons: Counter[str]) -> tuple[list[Selection], Array]:
    """The selections, then one that drops the rest of each comparison that they took a candidate from."""
    before = selections[-1].kept
    kept = whole(train, before)
    why = objects([""] * len(train))
    why[~kept] = "dropped by an earlier curator"
    why[before & ~kept] = _TORN
    if (before & ~kept).any():
        reasons[_TORN] = int((before & ~kept).sum())
    return [*selections, Selection("whole comparisons", kept, why)], np.flatnonzero(kept)

"""The real training data by the curators that candidates go through: what is good enough to be trained on."""

from __future__ import annotations

import numpy as np

from upturn.errors import RunError
from upturn.loop.stages.context import DATA, Done, Outcome, Work
from upturn.loop.stages.curate import chosen
from upturn.store import parquet_tables

_SAID = 3  # reasons that the note counts


def filter_real(work: Work) -> Outcome:
    """data/scores.parquet and data/selections.parquet; the training part is from here on what was kept.

    The held-out part stays whole. RunError where nothing is kept, with the reasons.
    """
    filtering = work.parts.filtering
    assert filtering is not None
    if not work.finished(DATA, "filter"):
        train = work.tools.train
        with work.committing(DATA, "filter") as out, work.computing(out):
            found, rewards = work.judged(train, filtering.scorers)
            selections, alive, reasons = chosen(work, DATA, filtering.curators, train, rewards)
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
        work.watch.note(f"filter: {len(alive):,} of {len(train):,} training samples kept{dropped}")
    work.narrow()
    return Done()

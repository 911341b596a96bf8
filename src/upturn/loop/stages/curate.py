"""Some candidates are kept, the others dropped, each drop with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from upturn.annotation.to_groups import vote_fields
from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.loop.stages.score import rewards_of, verdicts
from upturn.loop.stages.vote import votes_used
from upturn.protocols import VERIFIED, Curator
from upturn.store import parquet_tables
from upturn.types import Array, Samples, Selection, objects


def curate(context: RunContext, unit: str) -> Outcome:
    """rounds/NNN/selections.parquet: the curators in the recipe's order, each on what the one before kept."""
    if context.finished(unit, "curate"):
        return Done()
    samples = _voted(context, unit, parquet_tables.read_samples(context.run.unit(unit) / "samples.parquet"))
    rewards, right = rewards_of(context, unit, samples), verdicts(context, unit, samples)
    if right is not None:
        samples = samples.with_fields(**{VERIFIED: right})
    with context.committing(unit, "curate") as out:
        selections, alive, reasons = chosen(context, unit, context.parts.curators, samples, rewards)
        parquet_tables.write_selections(out.path / "selections.parquet", samples, selections)
        out.counts.update(kept=len(alive), dropped=len(samples) - len(alive))
        out.info["dropped"] = dict(reasons)
        if len(alive) and not np.isnan(rewards[alive]).all():
            out.info["reward_kept"] = float(np.nanmean(rewards[alive]))
        if right is not None:
            out.counts["kept_right"] = count = int((right[alive] == 1).sum())
            if len(alive):
                out.info["share_right"] = count / len(alive)
            kept = f"{len(alive):,} of {len(samples):,} candidates kept"
            context.observer.note(f"{unit}: {kept}, {count:,} of them right")
    return Done()


def _voted(context: RunContext, unit: str, samples: Samples) -> Samples:
    """The samples with the votes on them, where the recipe has annotators."""
    rounds = context.parts.recipe.rounds
    if rounds is None or rounds.people is None:
        return samples
    return samples.with_fields(**vote_fields(votes_used(context, unit), samples, rounds.people))


def chosen(
    context: RunContext, unit: str, curators: Mapping[str, Curator], samples: Samples, rewards: Array
) -> tuple[list[Selection], Array, Counter[str]]:
    """Curators in order, each on what the one before kept: their selections, the rows left, and counts of reasons."""
    alive = np.arange(len(samples))
    selections: list[Selection] = []
    reasons: Counter[str] = Counter()
    for name, curator in curators.items():
        key = context.key("curate", unit, name)
        selection = curator.curate(samples.take(alive), rewards[alive], context.tools, key)
        kept = np.zeros(len(samples), dtype=bool)
        kept[alive[selection.kept]] = True
        why = objects([""] * len(samples))
        why[~kept] = "dropped by an earlier curator"
        why[alive] = selection.reasons
        selections.append(Selection(name, kept, why))
        # a reason may carry numbers after its kind; they are counted by kind
        reasons.update(str(reason).split(":")[0] for reason in selection.reasons[~selection.kept])
        alive = alive[selection.kept]
    return selections, alive, reasons


def kept_rows(context: RunContext, unit: str) -> Array:
    """(N,) bool: what the last curator kept; all where there is none, nothing of a round that was skipped before."""
    samples = parquet_tables.read_samples(context.run.unit(unit) / "samples.parquet")
    if context.run.done(unit, "curate") is None:
        return np.zeros(len(samples), dtype=bool)
    if not context.parts.curators:
        return np.ones(len(samples), dtype=bool)
    found = parquet_tables.read_selections(context.run.unit(unit) / "selections.parquet", samples.ids)
    return found[-1].kept

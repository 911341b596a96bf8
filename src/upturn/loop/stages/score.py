"""Every scorer's word on every candidate."""

from __future__ import annotations

import numpy as np

from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome
from upturn.store import parquet_tables
from upturn.types import Array, Samples


def score(context: RunContext, unit: str) -> Outcome:
    """rounds/NNN/scores.parquet, one row a sample and scorer."""
    if context.finished(unit, "score"):
        return Done()
    samples = parquet_tables.read_samples(context.run.unit(unit) / "samples.parquet")
    with context.committing(unit, "score") as out:
        found, rewards = context.scores(samples)
        parquet_tables.write_scores(out.path / "scores.parquet", samples, found)
        scored = rewards[~np.isnan(rewards)]
        out.counts.update(scored=len(scored), unscored=len(samples) - len(scored))
        if len(scored):
            out.info["reward"] = float(scored.mean())
        if found:
            out.info["groups_without_spread"] = equal = without_spread(samples, rewards)
            if equal and (samples.candidate > 0).any():
                groups = len(np.unique(samples.group))
                context.observer.note(f"{unit}: the candidates of {equal:,} of {groups:,} prompts have equal rewards")
    return Done()


def rewards_of(context: RunContext, unit: str, samples: Samples) -> Array:
    """(N,) as the score stage left them."""
    if not context.parts.scorers:
        return np.full(len(samples), np.nan)
    found = parquet_tables.read_scores(context.run.unit(unit) / "scores.parquet", samples.ids)
    total = np.zeros(len(samples))
    for name, (_, weight) in context.parts.scorers.items():
        total = total + weight * found[name].values
    return total


def verdicts(context: RunContext, unit: str, samples: Samples) -> Array | None:
    """(N,) 1 where every verifier among the scorers says right, 0 where one says wrong, NaN where one does not know.

    None where no scorer verifies.
    """
    names = [name for name, (scorer, _) in context.parts.scorers.items() if scorer.verifies]
    if not names:
        return None
    found = parquet_tables.read_scores(context.run.unit(unit) / "scores.parquet", samples.ids)
    lowest: Array = np.min([found[name].values for name in names], axis=0)
    return lowest


def without_spread(samples: Samples, rewards: Array) -> int:
    """Groups whose candidates all have one reward: nothing can be learned from choosing among them."""
    known = ~np.isnan(rewards)
    groups = samples.group[known]
    if len(groups) == 0:
        return 0
    _, inverse = np.unique(groups, return_inverse=True)
    low = np.full(inverse.max() + 1, np.inf)
    high = np.full(inverse.max() + 1, -np.inf)
    np.minimum.at(low, inverse, rewards[known])
    np.maximum.at(high, inverse, rewards[known])
    return int((low == high).sum())

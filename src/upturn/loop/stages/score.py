"""Every scorer's word on every candidate."""

from __future__ import annotations

import numpy as np

from upturn.loop.stages.context import Done, Outcome, Work
from upturn.store import parquet_tables
from upturn.types import Array, Samples


def score(work: Work, unit: str) -> Outcome:
    """rounds/NNN/scores.parquet, one row a sample and scorer."""
    if work.finished(unit, "score"):
        return Done()
    samples = parquet_tables.read_samples(work.run.unit(unit) / "samples.parquet")
    with work.committing(unit, "score") as out:
        found, rewards = work.scores(samples)
        parquet_tables.write_scores(out.path / "scores.parquet", samples, found)
        scored = rewards[~np.isnan(rewards)]
        out.counts.update(scored=len(scored), unscored=len(samples) - len(scored))
        if len(scored):
            out.info["reward"] = float(scored.mean())
        if found:
            out.info["groups_without_spread"] = without_spread(samples, rewards)
    return Done()


def rewards_of(work: Work, unit: str, samples: Samples) -> Array:
    """(N,) as the score stage left them."""
    if not work.parts.scorers:
        return np.full(len(samples), np.nan)
    found = parquet_tables.read_scores(work.run.unit(unit) / "scores.parquet", samples.ids)
    total = np.zeros(len(samples))
    for name, (_, weight) in work.parts.scorers.items():
        total = total + weight * found[name].values
    return total


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

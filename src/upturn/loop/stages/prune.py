"""Weights beyond what the recipe keeps are removed, and the removal is recorded."""

from __future__ import annotations

from upturn.loop.stages.context import Done, Outcome, Work


def prune(work: Work) -> Outcome:
    """Never the incumbent's, never those of round 0, never a table."""
    keep = work.parts.recipe.keep
    if work.follower or (keep.weights == "all" and keep.disk_gb is None):
        return Done()
    for gone in work.run.prune(keep.weights, None if keep.disk_gb is None else int(keep.disk_gb * 1e9)):
        work.watch.note(f"the weights of {gone.unit} are removed ({gone.reason})")
    return Done()

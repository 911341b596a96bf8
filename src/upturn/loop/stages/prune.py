"""Weights beyond what the recipe keeps are removed, and the removal is recorded."""

from __future__ import annotations

from upturn.loop.run_context import RunContext
from upturn.loop.stages.outcome import Done, Outcome


def prune(context: RunContext) -> Outcome:
    """Never the incumbent's, never those of round 0, never a table."""
    keep = context.parts.recipe.keep
    if context.follower or (keep.weights == "all" and keep.disk_gb is None):
        return Done()
    for gone in context.run.prune(keep.weights, None if keep.disk_gb is None else int(keep.disk_gb * 1e9)):
        context.observer.note(f"the weights of {gone.unit} are removed ({gone.reason})")
    return Done()

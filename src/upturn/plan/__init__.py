"""Time, cost, disk and stability of a recipe, before anything is spent."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from upturn.config import components
from upturn.config.recipe import Recipe
from upturn.plan import memory, prefetch
from upturn.plan.result import Plan, Row

__all__ = ["Plan", "Row", "plan"]


def plan(recipe: Recipe) -> Plan:
    """Load the data, time a few steps of each kind, and add up. Nothing is written.

    Raises UserError for whatever ``upturn run`` would refuse.
    """
    source = components.make("source", recipe.data, "data")
    with prefetch.loading(source) as data, _without_collections():
        import torch

        from upturn.loop.assemble import assemble
        from upturn.plan.disk_and_theory import disk_bytes, theory
        from upturn.plan.planner import Planner
        from upturn.plan.preprocessing import worded
        from upturn.plan.round_rows import add_rounds

        parts = assemble(recipe)
        torch.set_num_threads(recipe.threads or torch.get_num_threads())
        splits, writing = worded(parts, data.splits())
        planner = Planner(parts, splits, data.seconds)
        planner.rows += writing
    planner.before_rounds()
    fractions = add_rounds(planner, recipe.rounds) if recipe.rounds else (1.0,)
    free = memory.free_bytes() + planner.loaded_bytes()
    memory.require(planner.memory, free, planner.trainings, planner.batch)
    return Plan(
        recipe, tuple(planner.rows), fractions, disk_bytes(planner), theory(planner), tuple(planner.notes),
        tuple(planner.memory), free,
    )


@contextmanager
def _without_collections() -> Iterator[None]:
    """Imports without looking for garbage: a million objects of torch and transformers come, and stay to the end.

    They are frozen: no later collection goes through them, nor the one at exit. Together a quarter of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

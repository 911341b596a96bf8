"""The verdict of the theory once a round is known: with the rewards, and the share kept, that were measured in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from upturn.loop.run_context import RunContext
from upturn.loop.stages.score import rewards_of
from upturn.store import parquet_tables
from upturn.theory import selector_of, verdict
from upturn.types import Array, Samples

_SUPPORT = 256  # rewards that represent those of a round: the cost of a forecast grows with them


def forecast_after(context: RunContext, unit: str, number: int) -> dict[str, Any] | None:
    """``after`` this round: the ``kind``, ``kept`` and ``word`` for all configured rounds, and the ``assumption``.

    None where no samples are mixed (online), fewer than two were kept, or the theory has no such mixing policy.
    """
    rounds = context.parts.recipe.rounds
    assert rounds is not None
    mixed = context.run.done(unit, "mix")
    policy = context.parts.mixing.theory if context.parts.mixing is not None else None
    if rounds.sample is None or policy is None or mixed is None or "synthetic" not in mixed.counts:
        return None
    samples = parquet_tables.read_samples(context.run.unit(unit) / "samples.parquet")
    left = _left(context, unit, samples)
    kept = left[-1]
    if kept < 2:
        return None
    settings = context.parts.sampling
    curators = context.parts.curators.values()
    selection = [selector_of(c, after / before) for c, before, after in zip(curators, left[:-1], left[1:], strict=True)]
    found = verdict(
        policy, synthetic=kept, real=int(mixed.counts["real"]), rounds=rounds.count,
        lam=rounds.mix.lambda_, selection=selection, candidates=rounds.sample.candidates,
        temperature=settings.temperature or 1.0,
        guidance=settings.guidance or 1.0, size=rounds.mix.size,
        rewards=_spread(rewards_of(context, unit, samples)),
    )
    assumption = found.statements[-1].assumption
    return {"after": number, "kind": found.kind, "kept": found.kept, "word": found.word, "assumption": assumption}


def _left(context: RunContext, unit: str, samples: Samples) -> list[int]:
    """How many candidates there were, and how many each curator of the chain left."""
    if not context.parts.curators:
        return [len(samples)]
    selections = parquet_tables.read_selections(context.run.unit(unit) / "selections.parquet", samples.ids)
    return [len(samples), *(int(selection.kept.sum()) for selection in selections)]


def _spread(rewards: Array) -> Array | None:
    """(256,) evenly from the sorted rewards; None where nothing, or nothing different, was scored."""
    known = np.sort(rewards[~np.isnan(rewards)])
    if len(known) < 2 or known[0] == known[-1]:
        return None
    at = (np.arange(_SUPPORT) + 0.5) / _SUPPORT * len(known)
    return np.asarray(known[at.astype(int)])

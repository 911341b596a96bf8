"""The verdict of the theory once a round is known: with the rewards, and the share kept, that were measured in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from upturn.loop.stages.context import Work
from upturn.loop.stages.score import rewards_of
from upturn.store import parquet_tables
from upturn.theory import selector_of, verdict
from upturn.types import Array, Samples

_SUPPORT = 256  # rewards that stand for a round's: the cost of a forecast grows with them


def forecast_after(work: Work, unit: str, number: int) -> dict[str, Any] | None:
    """``after`` this round: the ``kind``, ``kept`` and ``word`` for all rounds asked for, and the ``assumption``.

    None where no samples are mixed (online), fewer than two were kept, or the theory has no such mixing policy.
    """
    rounds = work.parts.recipe.rounds
    assert rounds is not None
    mixed = work.run.done(unit, "mix")
    policy = work.parts.mixing.theory if work.parts.mixing is not None else None
    if rounds.sample is None or policy is None or mixed is None or "synthetic" not in mixed.counts:
        return None
    samples = parquet_tables.read_samples(work.run.unit(unit) / "samples.parquet")
    left = _left(work, unit, samples)
    kept = left[-1]
    if kept < 2:
        return None
    settings = work.parts.sampling
    curators = work.parts.curators.values()
    selection = [selector_of(c, after / before) for c, before, after in zip(curators, left[:-1], left[1:], strict=True)]
    found = verdict(
        policy, synthetic=kept, real=int(mixed.counts["real"]), rounds=rounds.count,
        lam=rounds.mix.lambda_, selection=selection, candidates=rounds.sample.candidates,
        temperature=settings.temperature or 1.0,
        guidance=settings.guidance or 1.0, size=rounds.mix.size,
        rewards=_spread(rewards_of(work, unit, samples)),
    )
    assumption = found.statements[-1].assumption
    return {"after": number, "kind": found.kind, "kept": found.kept, "word": found.word, "assumption": assumption}


def _left(work: Work, unit: str, samples: Samples) -> list[int]:
    """How many candidates there were, and how many each curator of the chain left."""
    if not work.parts.curators:
        return [len(samples)]
    selections = parquet_tables.read_selections(work.run.unit(unit) / "selections.parquet", samples.ids)
    return [len(samples), *(int(selection.kept.sum()) for selection in selections)]


def _spread(rewards: Array) -> Array | None:
    """(256,) evenly from the sorted rewards; None where nothing, or nothing different, was scored."""
    known = np.sort(rewards[~np.isnan(rewards)])
    if len(known) < 2 or known[0] == known[-1]:
        return None
    at = (np.arange(_SUPPORT) + 0.5) / _SUPPORT * len(known)
    return np.asarray(known[at.astype(int)])

"""The verdict of the theory once a round is known: with the rewards, and the share kept, that were measured in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from upturn.loop.stages.context import Work
from upturn.loop.stages.curate import kept_rows
from upturn.loop.stages.score import rewards_of
from upturn.store import tables
from upturn.theory import verdict
from upturn.types import Array

_SUPPORT = 256  # rewards that stand for a round's: the cost of a forecast grows with them


def foreseen(work: Work, unit: str, number: int) -> dict[str, Any] | None:
    """``after`` this round: the ``kind``, ``kept`` and ``word`` for all rounds asked for, and the ``assumption``.

    None where no samples are mixed (online), fewer than two were kept, or the theory has no such mixing policy.
    """
    rounds = work.parts.recipe.rounds
    assert rounds is not None
    mixed = work.run.done(unit, "mix")
    policy = work.parts.mixing.theory if work.parts.mixing is not None else None
    if rounds.sample is None or policy is None or mixed is None or "synthetic" not in mixed.counts:
        return None
    samples = tables.read_samples(work.run.unit(unit) / "samples.parquet")
    kept = int(kept_rows(work, unit).sum())
    if kept < 2:
        return None
    settings = work.parts.sampling
    names = [str(spec["name"]) for spec in rounds.curate]
    found = verdict(
        policy, synthetic=kept, real=int(mixed.counts["real"]), rounds=rounds.count,
        lam=rounds.mix.lambda_, curator=names[-1] if names else "", candidates=rounds.sample.candidates,
        kept=kept / len(samples), temperature=float(getattr(settings, "temperature", 1.0) or 1.0),
        guidance=float(getattr(settings, "guidance", 1.0) or 1.0), size=rounds.mix.size,
        rewards=_spread(rewards_of(work, unit, samples)),
    )
    assumption = found.statements[-1].assumption
    return {"after": number, "kind": found.kind, "kept": found.kept, "word": found.word, "assumption": assumption}


def _spread(rewards: Array) -> Array | None:
    """(256,) evenly from the sorted rewards; None where nothing, or nothing different, was scored."""
    known = np.sort(rewards[~np.isnan(rewards)])
    if len(known) < 2 or known[0] == known[-1]:
        return None
    at = (np.arange(_SUPPORT) + 0.5) / _SUPPORT * len(known)
    return np.asarray(known[at.astype(int)])

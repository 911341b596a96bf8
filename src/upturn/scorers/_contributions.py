"""Features for scorers of a sample's contribution to the set that is scored with it."""

from __future__ import annotations

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Tools
from upturn.types import Array, Samples, Scores, objects


def real_features(tools: Tools, least: int, scorer: str) -> Array:
    """(N, D) of the real training part: held-out data is for metrics, no scorer may read it.

    Raises UserError below ``least`` samples, or where features are not finite.
    """
    found = np.asarray(tools.embed(tools.train)) if len(tools.train) else np.zeros((0, 1))
    if len(found) < least:
        raise UserError(f"{len(found)} real training samples; at least {least} are needed",
                        where=f"scorer '{scorer}'", fix="Bring more data.")
    if not np.isfinite(found).all():
        raise UserError("training samples have features that are not finite", where=f"scorer '{scorer}'",
                        fix="Check 'features:' and the data.")
    return found


def sample_features(samples: Samples, tools: Tools) -> tuple[Array, Array]:
    """(M, D) features of the samples with finite features, and (N,) bool which samples those are."""
    found = np.asarray(tools.embed(samples))
    finite: Array = np.isfinite(found).all(axis=1)
    return found[finite], finite


def spread_out(name: str, known: Array, values: Array, words: list[str], why: str) -> Scores:
    """Scores of (N,) samples from those (M,) of the known ones; the others are unscored for the reason ``why``."""
    everything, explanations = np.full(len(known), np.nan), objects([f"unscored: {why}"] * len(known))
    everything[known], explanations[known] = values, objects(words)
    return Scores(name, everything, explanations)

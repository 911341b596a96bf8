"""Scores and explanations for safe and unsafe images."""

from __future__ import annotations

import numpy as np

from upturn.types import Array, Scores, objects


def check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie between 0 and 1, not {threshold}")


def verdicts(scorer: str, unsafe: Array, names: Array, threshold: float) -> Scores:
    """1 where the probability (N,) that an image is unsafe is below the threshold, 0 elsewhere, NaN where not finite.

    ``names`` (N,) are the most probable labels.
    """
    known = np.isfinite(unsafe)
    values = np.where(known, unsafe < threshold, np.nan).astype(np.float64)
    words = [
        f"{'safe' if p < threshold else 'unsafe'}: {name}, unsafe with {p:.2f} against {threshold:g}" if p == p
        else "unscored: the model gives no number"
        for p, name in zip(unsafe.tolist(), names.tolist(), strict=True)
    ]
    return Scores(scorer, values, objects(words))

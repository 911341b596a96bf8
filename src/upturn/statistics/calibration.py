"""Whether stated probabilities come true: reliability bins, expected calibration error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from upturn.statistics.intervals import subsample_masks
from upturn.types import Array

_BINS = 10  # between 1/2 and 1: steps of 5 points of confidence


def reliability(confidence: Array, right: Array, low: float = 0.5, bins: int = _BINS) -> list[dict[str, float]]:
    """Equal steps from ``low`` to 1: mean confidence, share that is right, and count of each that is not empty."""
    place = _place(confidence, low, bins)
    count = np.bincount(place, minlength=bins)
    claimed = np.bincount(place, weights=confidence, minlength=bins)
    true = np.bincount(place, weights=right, minlength=bins)
    return [
        {"confidence": float(claimed[b] / count[b]), "right": float(true[b] / count[b]), "count": int(count[b])}
        for b in np.flatnonzero(count).tolist()
    ]


def calibration_error(
    confidence: Array, right: Array, key: int, clusters: Array | None = None, low: float = 0.5, bins: int = _BINS
) -> dict[str, Any]:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3) with an interval.

    ``confidence`` (M,) in [low, 1], ``right`` (M,) 0 or 1. value = sum_b n_b / M |right_b - confidence_b|; the interval
    is that of what it is on average at this M (:func:`upturn.statistics.intervals.subsample_masks`): chance alone makes
    it positive, and "by_chance" is what a perfectly calibrated model would show, sum_b sqrt(2 v_b / pi) / M with v_b
    the sum of p (1 - p) over the bin (each bin's error taken as normal).
    """
    if len(confidence) == 0:
        return {"value": None, "low": None, "high": None, "by_chance": None}
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    place = _place(confidence, low, bins)
    inside = np.zeros((len(place), bins))
    inside[np.arange(len(place)), place] = right - confidence

    def error(masks: Array) -> Array:
        found: Array = np.abs(masks.astype(np.float64) @ inside).sum(axis=1) / masks.sum(axis=1)
        return found

    value = float(np.abs(inside.sum(axis=0)).sum()) / len(place)
    ends = subsample_masks(error, len(place), key, clusters=clusters)
    spread = np.bincount(place, weights=confidence * (1 - confidence), minlength=bins)
    chance = float(np.sqrt(2 * spread / math.pi).sum()) / len(place)
    known = all(math.isfinite(end) for end in ends)
    return {
        "value": value, "low": max(0.0, ends[0]) if known else None, "high": ends[1] if known else None,
        "by_chance": chance,
    }


def _place(confidence: Array, low: float, bins: int) -> Array:
    place: Array = np.clip((np.asarray(confidence) - low) / (1 - low) * bins, 0, bins - 1).astype(np.int64)
    return place

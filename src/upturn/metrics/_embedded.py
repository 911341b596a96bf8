"""Features of the samples and of the real data, checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from upturn.metrics._undefined import UndefinedMetric
from upturn.protocols import Evidence, Tools
from upturn.seeds import key
from upturn.types import Array, Samples

Real = Literal["held_out", "train"]
_STRIP = 4096  # rows: 64 MB at 2,048 dimensions in float64


def sample_features(evidence: Evidence, least: int = 0) -> Array:
    """(N, D) of the evaluation samples, in the encoder's own precision.

    Raises UndefinedMetric below ``least`` samples.
    """
    features = _checked(evidence.tools, evidence.samples, "samples")
    if len(features) < least:
        raise UndefinedMetric(f"{len(features)} samples; at least {least} are needed")
    return features


def real_features(tools: Tools, part: Real, least: int) -> Array:
    """(M, D) of a part of the real data, in the encoder's own precision.

    Raises UndefinedMetric below ``least`` samples.
    """
    samples = real_part(tools, part)
    name = part.replace("_", "-")
    if len(samples) < least:
        raise UndefinedMetric(f"{len(samples)} {name} samples; at least {least} are needed")
    return _checked(tools, samples, f"{name} samples")


def real_part(tools: Tools, part: Real) -> Samples:
    return tools.held_out if part == "held_out" else tools.train


def metric_key(evidence: Evidence, name: str) -> int:
    """The seed key of a metric's own random draws (resamples): the same in every round."""
    return key("metric", name, evidence.seed)


def spread_rows(n: int, at_most: int) -> Array:
    """Up to ``at_most`` row numbers of n, evenly spaced: the same in every round, every class in its share."""
    return np.arange(n) if n <= at_most else np.linspace(0, n - 1, at_most).round().astype(np.int64)


def _checked(tools: Tools, samples: Samples, what: str) -> Array:
    features = np.asarray(tools.embed(samples))
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float64)
    broken = sum(int((~np.isfinite(part).all(axis=1)).sum()) for part in strips(features))
    if broken:
        raise UndefinedMetric(f"{broken} of {len(samples)} {what} have features that are not finite")
    return features


def strips(features: Array) -> Iterator[Array]:
    """The rows (N, D) a few thousand at a time, to bound the memory of float64 computations."""
    for start in range(0, len(features), _STRIP):
        yield features[start : start + _STRIP]

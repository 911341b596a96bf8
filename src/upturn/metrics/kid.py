"""Kernel distance between the features of samples and of real data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import Real, made_features, metric_key, real_features, spread_rows
from upturn.metrics._silence import CannotSpeak, speaks_or_says_why
from upturn.protocols import Evidence
from upturn.statistics.intervals import subsample_masks
from upturn.types import Array, Measurement

_MOST = 4000  # rows of either side: their matrix of kernels is 128 MB
_LEAST = 8


@dataclass(frozen=True)
class Kid:
    """Squared maximum mean discrepancy with the kernel (x.y / d + 1)^3: unbiased, so it may fall below 0.

    Binkowski et al. 2018 ("Demystifying MMD GANs"), section 4 and equation 4. It means the same at any n, where the
    Fréchet distance falls with n. Not multiplied by 1,000, as some report it. ``floor`` in the details is what training
    data itself gives against the same real data.

    The interval is by subsampling the samples in blocks without replacement, the real ones as they are.
    """

    against: Real = "held_out"

    kinds: ClassVar[frozenset[str]] = frozenset({"text", "image", "points"})
    better: ClassVar[str] = "lower"
    by_features: ClassVar[bool] = True

    @speaks_or_says_why
    def measure(self, evidence: Evidence) -> Measurement:
        made = made_features(evidence)
        if len(made) < _LEAST:
            raise CannotSpeak(f"{len(made)} samples; at least {_LEAST} are needed")
        rows = spread_rows(len(made), _MOST)
        real = _some(real_features(evidence.tools, self.against, _LEAST))
        value, at = _distance(made[rows], real)
        low, high = subsample_masks(
            at, len(rows), metric_key(evidence, "kid"), clusters=np.asarray(evidence.samples.group)[rows]
        )
        details: dict[str, float | int] = {"real": len(real)}
        other: Real = "train" if self.against == "held_out" else "held_out"
        with suppress(CannotSpeak):
            details["floor"] = _distance(_some(real_features(evidence.tools, other, _LEAST)), real)[0]
        note = "" if len(rows) == len(made) else f"{len(rows)} of {len(made)} samples are looked at"
        return Measurement(value, low, high, len(rows), note=note, details=details)


def kernel(a: Array, b: Array) -> Array:
    """(N, M) of (N, D) and (M, D)."""
    found: Array = (a @ b.T / a.shape[1] + 1) ** 3
    return found


def _some(features: Array) -> Array:
    taken: Array = features[spread_rows(len(features), _MOST)]
    return taken


def _distance(made: Array, real: Array) -> tuple[float, Callable[[Array], Array]]:
    """The estimate, and a function of (R, N) bool that gives it of subsets of ``made``."""
    own, among = kernel(made, made), kernel(real, real)
    m = len(real)
    fixed = (among.sum() - np.trace(among)) / (m * (m - 1))
    itself, across = np.diag(own).copy(), kernel(made, real).mean(axis=1)

    def at(masks: Array) -> Array:
        chosen = masks.astype(np.float64)
        n = chosen.sum(axis=1)
        pairs = np.einsum("ri,ri->r", chosen @ own, chosen) - chosen @ itself
        found: Array = pairs / (n * (n - 1)) + fixed - 2 * (chosen @ across) / n
        return found

    return float(at(np.ones((1, len(made)), dtype=bool))[0]), at

"""Exponent of Zipf's law, fitted to word frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._grams import Unit, grams, units
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.types import Array, Measurement

_TAIL = 50  # different words that a fit needs: below, Clauset et al. find it biased (their section 3)
_RANGE = (1.0 + 1e-6, 12.0)  # where the exponent is looked for


@dataclass(frozen=True)
class Zipf(Metric):
    """Exponent s of Zipf's law, frequency ~ 1 / rank^s, by maximum likelihood: about 1 in natural text.

    Clauset, Shalizi & Newman 2009, SIAM Review 51, section 3: how often words occur is fitted by the discrete power law
    x^(-alpha) / zeta(alpha, x_min) from x_min on, where x_min brings fit and data nearest to each other (Kolmogorov and
    Smirnov's ``distance``, in the details). s = 1 / (alpha - 1). A line through the log-log plot of ranks, the usual
    way, is biased and has no valid error. A steeper law (larger s) means that fewer words make up more of the text;
    ``real`` in the details is the value for held-out text. Check ``distance`` for whether the law holds.

    The interval is from the curvature of the likelihood, x_min held fixed, words taken as independent.
    """

    unit: Unit = "words"

    title: ClassVar[str] = "Zipf exponent"
    meaning: ClassVar[str] = "How fast the frequency of words falls with their rank: about 1 in natural text."
    reference: ClassVar[tuple[str, str] | None] = ("real", "held-out text")
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    better: ClassVar[Better] = "neither"

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        found = Law.of(_frequencies(evidence.samples.content, self.unit))
        if found is None:
            raise UndefinedMetric(f"fewer than {_TAIL} different {self.unit} that occur unequally often")
        details: dict[str, object] = {
            "alpha": found.alpha, "error": found.error, "x_min": found.x_min, "tail": found.tail,
            "distance": found.distance,
        }
        real = Law.of(_frequencies(evidence.tools.held_out.content, self.unit))
        if real is not None:
            details["real"] = 1 / (real.alpha - 1)
        low, high = (1 / max(found.alpha + side * 1.96 * found.error - 1, 1e-9) for side in (1, -1))
        return Measurement(1 / (found.alpha - 1), low, high, len(evidence.samples), details=details)


@dataclass(frozen=True)
class Law:
    """A discrete power law: its exponent with standard error, from where on, of how many words, and how far off."""

    alpha: float
    error: float
    x_min: int
    tail: int
    distance: float

    @staticmethod
    def of(counts: Array) -> Law | None:
        """The best of all x_min that leave enough words; None where there is none."""
        values, how_many = np.unique(counts, return_counts=True)
        found = []
        for place in range(len(values) - 1):
            if how_many[place:].sum() < _TAIL:
                break
            found.append(_fit(values[place:], how_many[place:]))
        return min(found, key=lambda law: law.distance) if found else None


def _fit(values: Array, how_many: Array) -> Law:
    """``values`` (V,) ascending counts from x_min on, ``how_many`` words have each."""
    from scipy.optimize import minimize_scalar
    from scipy.special import zeta

    x_min, tail = int(values[0]), int(how_many.sum())
    mean_log = float((how_many * np.log(values)).sum()) / tail

    def loss(alpha: float) -> float:
        return math.log(float(zeta(alpha, x_min))) + alpha * mean_log

    alpha = float(minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-8}).x)
    step = 1e-3 * (alpha - 1)
    curvature = (loss(alpha + step) - 2 * loss(alpha) + loss(alpha - step)) / step**2
    model = 1 - zeta(alpha, values + 1.0) / zeta(alpha, x_min)
    data = np.cumsum(how_many) / tail
    return Law(alpha, 1 / math.sqrt(tail * curvature), x_min, tail, float(np.abs(model - data).max()))


def _frequencies(content: Array, unit: Unit) -> Array:
    """(V,) how often each different word occurs."""
    found, _ = grams(units(content, unit), 1)
    return np.bincount(found)

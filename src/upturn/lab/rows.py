"""The rows of an experiment: a measured quantity beside its value in theory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from upturn.types import Array

BOUND = 4.0  # standard errors within which simulation and theory agree
Kind = Literal["equal", "at most", "at least"]


@dataclass(frozen=True)
class Formula:
    """The theory of a quantity: ``text`` for display, its ``assumption``, and its ``source``.

    ``kind``: whether the simulation must equal it, or lie on one side of it.
    """

    text: str
    assumption: str
    source: str  # of upturn.theory, or the paper
    kind: Kind = "equal"


@dataclass(frozen=True)
class LabRow:
    """One quantity of one cell at one round.

    cell       index among the cells that ran together
    simulation the measured value: the mean over ``count`` replicas, with its ``standard_error`` (0: exact)
    theory     NaN without a formula; ``formula`` names it
    tolerance  additional allowed difference: rounding, or terms that the formula leaves out, set by the experiment
    meaningful False if the mean depends on a few replicas and cannot be tested
    low, high  the middle 90% of the replicas
    """

    cell: int
    quantity: str
    round: float
    simulation: float
    standard_error: float = 0.0
    count: int = 1
    theory: float = math.nan
    formula: str = ""
    tolerance: float = 0.0
    meaningful: bool = True
    low: float = math.nan
    high: float = math.nan


def measured(
    cell: int, quantity: str, at: float, values: Array, theory: float = math.nan, formula: str = "", *,
    tolerance: float = 0.0, meaningful: bool = True, variance: float = 0.0,
) -> LabRow:
    """The row of (R,) independent replicas; NaN among them are left out of mean and count.

    ``variance``: lower limit of the variance of one replica, because rare events may occur in no replica.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return LabRow(cell, quantity, at, math.nan, math.nan, 0, theory, formula, tolerance, False)
    spread = max(float(known.var(ddof=1)), variance) if len(known) > 1 else math.nan
    error = math.sqrt(spread / len(known))
    low, high = np.quantile(known, [0.05, 0.95])
    return LabRow(
        cell, quantity, at, float(known.mean()), error, len(known), theory, formula, tolerance,
        meaningful and math.isfinite(error) and math.isfinite(float(known.mean())), float(low), float(high),
    )


def exact(
    cell: int, quantity: str, at: float, value: float, theory: float = math.nan, formula: str = "", *,
    tolerance: float = 0.0, count: int = 1,
) -> LabRow:
    """The row of a value that is enumerated or integrated, not sampled."""
    return LabRow(cell, quantity, at, value, 0.0, count, theory, formula, tolerance)


def judged(row: LabRow, kind: Kind) -> tuple[float | None, bool | None]:
    """(z, agrees): standard errors between simulation and theory beyond the tolerance, and whether they are few enough.

    Both are None without a test; z is None for an exact row. Of a bound only the wrong side counts: z is below zero
    if it holds.
    """
    if not row.meaningful or not math.isfinite(row.theory) or math.isnan(row.simulation):
        return None, None
    gap = row.simulation - row.theory
    beyond = math.copysign(max(abs(gap) - row.tolerance, 0.0), gap) if kind == "equal" else gap
    if kind == "at least":
        beyond = -gap
    if kind != "equal":
        beyond -= row.tolerance
    if not row.standard_error > 0:
        return None, (abs(beyond) if kind == "equal" else beyond) <= 0
    z = beyond / row.standard_error
    return z, (abs(z) if kind == "equal" else z) <= BOUND


def record(row: LabRow, kind: Kind) -> dict[str, Any]:
    """A row of the table, by column."""
    z, agrees = judged(row, kind)
    return {
        "quantity": row.quantity, "round": row.round, "theory": row.theory, "simulation": row.simulation,
        "standard_error": row.standard_error, "z": z, "meaningful": agrees is not None, "agrees": agrees,
        "tolerance": row.tolerance, "count": row.count, "low": row.low, "high": row.high, "formula": row.formula,
    }

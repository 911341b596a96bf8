"""What an experiment says: one row a measured quantity, beside what theory says of it."""

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
    """What theory says of a quantity: ``text`` as it is printed, the ``assumption`` it stands on, and its ``source``.

    ``kind`` says how a simulation may stand to it: equal, or on one side of a bound.
    """

    text: str
    assumption: str
    source: str  # of upturn.theory, or the paper
    kind: Kind = "equal"


@dataclass(frozen=True)
class Row:
    """One quantity of one cell at one round.

    cell       which of the cells that were run together
    simulation what was measured: the mean over ``count`` replicas, with its ``standard_error`` (0: exact)
    theory     NaN where no formula speaks of it; ``formula`` names it
    tolerance  by how much they may differ besides: rounding, or what the formula leaves out, stated by the experiment
    meaningful False where a mean over replicas is no test of a mean: rare replicas carry it
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
) -> Row:
    """The row of (R,) independent replicas; NaN among them are left out, and counted out.

    ``variance`` is the least that one replica has: of rare events all replicas may show none, and be sure of nothing.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Row(cell, quantity, at, math.nan, math.nan, 0, theory, formula, tolerance, False)
    spread = max(float(known.var(ddof=1)), variance) if len(known) > 1 else math.nan
    error = math.sqrt(spread / len(known))
    low, high = np.quantile(known, [0.05, 0.95])
    return Row(
        cell, quantity, at, float(known.mean()), error, len(known), theory, formula, tolerance,
        meaningful and math.isfinite(error) and math.isfinite(float(known.mean())), float(low), float(high),
    )


def exact(
    cell: int, quantity: str, at: float, value: float, theory: float = math.nan, formula: str = "", *,
    tolerance: float = 0.0, count: int = 1,
) -> Row:
    """The row of what was enumerated or integrated, not drawn."""
    return Row(cell, quantity, at, value, 0.0, count, theory, formula, tolerance)


def judged(row: Row, kind: Kind) -> tuple[float | None, bool | None]:
    """(z, agrees): by how many standard errors simulation leaves theory beyond the tolerance, and whether it may.

    Both None where nothing is tested; z None where the row is exact. Of a bound only the wrong side counts: z is below
    zero where it holds.
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


def record(row: Row, kind: Kind) -> dict[str, Any]:
    """A row of the table, by column."""
    z, agrees = judged(row, kind)
    return {
        "quantity": row.quantity, "round": row.round, "theory": row.theory, "simulation": row.simulation,
        "standard_error": row.standard_error, "z": z, "meaningful": agrees is not None, "agrees": agrees,
        "tolerance": row.tolerance, "count": row.count, "low": row.low, "high": row.high, "formula": row.formula,
    }

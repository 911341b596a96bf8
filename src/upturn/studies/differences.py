"""Which variants of a study differ beyond chance, metric by metric."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from upturn import seeds
from upturn.statistics.contrast import contrast
from upturn.types import Array, Measurement, Samples

LEVEL = 0.05  # probability that any difference of a metric is reported where there is none


@dataclass(frozen=True)
class Arm:
    """A variant's models, one a seed: what was measured of each, and on which samples."""

    name: str
    seeds: tuple[int, ...]
    measured: tuple[Mapping[str, Measurement], ...]
    asked: tuple[Samples, ...]
    policy: str  # the policy's component: a surrogate likelihood compares no others


@dataclass(frozen=True)
class Difference:
    """``a`` less ``b``, two variants.

    low, high  95% interval of this difference alone
    p          two-sided, adjusted for all pairs of the metric (Holm 1979, Scandinavian Journal of Statistics 6)
    differs    p <= 0.05
    how        "seeds": over trainings with several seeds (paired t test);  "paired": one training each, by sample;
               "intervals": one training each, by their intervals;  "none", "surrogate": not compared
    """

    a: str
    b: str
    value: float
    low: float
    high: float
    p: float
    differs: bool
    how: str


def differences(metric: str, better: str, arms: Mapping[str, Arm]) -> list[Difference]:
    """Every pair of variants that both have a value."""
    known = [arm for arm in arms.values() if all(_has(found, metric) for found in arm.measured)]
    pairs = list(itertools.combinations(known, 2))
    raw = [_pair(metric, better, a, b) for a, b in pairs]
    adjusted = holm([found[3] for found in raw])
    return [
        Difference(a.name, b.name, *found[:3], p, bool(p <= LEVEL) and found[4] not in ("none", "surrogate"), found[4])
        for (a, b), found, p in zip(pairs, raw, adjusted, strict=True)
    ]


def _has(found: Mapping[str, Measurement], metric: str) -> bool:
    return metric in found and math.isfinite(found[metric].value)


def _pair(metric: str, better: str, a: Arm, b: Arm) -> tuple[float, float, float, float, str]:
    """Difference, its ends, p (two-sided, of this pair alone), and how it was found."""
    if a.policy != b.policy and _surrogate(metric, a):
        return math.nan, math.nan, math.nan, 1.0, "surrogate"
    if len(a.seeds) > 1 and a.seeds == b.seeds:
        apart = [one[metric].value - two[metric].value for one, two in zip(a.measured, b.measured, strict=True)]
        return (*_t_test(np.array(apart)), "seeds")
    key = seeds.key("study", metric, a.name, b.name)
    one, two = a.measured[0][metric], b.measured[0][metric]
    found = contrast(one, two, key, clusters=a.asked[0].group, paired=_same(a, b, one))
    return found.value, found.low, found.high, found.two_sided, found.how


def _surrogate(metric: str, arm: Arm) -> bool:
    return arm.measured[0][metric].details.get("likelihood") == "surrogate"


def _same(a: Arm, b: Arm, one: Measurement) -> bool:
    """Whether the rows of both have one prompt and one noise; values of another number of rows are of real samples."""
    mine, theirs = a.asked[0], b.asked[0]
    if one.values is None or len(one.values) != len(mine):
        return True
    if len(mine) != len(theirs) or not np.array_equal(mine.fields["key"], theirs.fields["key"]):
        return False
    return [p.text for p in mine.prompts] == [p.text for p in theirs.prompts]


def _t_test(apart: Array) -> tuple[float, float, float, float]:
    from scipy.special import stdtr, stdtrit

    count, mean = len(apart), float(apart.mean())
    error = float(apart.std(ddof=1)) / math.sqrt(count)
    if error == 0:
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    half = float(stdtrit(count - 1, 0.975)) * error
    return mean, mean - half, mean + half, 2 * float(stdtr(count - 1, -abs(mean) / error))


def marks(better: str, values: Mapping[str, float], found: Sequence[Difference]) -> dict[str, str]:
    """Variant -> "best", "worse" (than the best, beyond chance), "alike" (no difference), or "" (unknown)."""
    out = dict.fromkeys(values, "")
    if better not in ("higher", "lower") or len(values) < 2:
        return out
    sign = 1.0 if better == "higher" else -1.0
    best = max(values, key=lambda name: sign * values[name])
    out[best] = "best"
    for one in found:
        if best in (one.a, one.b) and one.how not in ("none", "surrogate"):
            out[one.b if one.a == best else one.a] = "worse" if one.differs else "alike"
    # alone at the top only where another variant differs from it
    if "worse" not in out.values():
        out[best] = "alike" if "alike" in out.values() else ""
    return out


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of any false alarm among them stays at the level that each is compared with."""
    order = np.argsort(p, kind="stable")
    out, highest = np.empty(len(p)), 0.0
    for place, row in enumerate(order.tolist()):
        highest = max(highest, min(1.0, (len(p) - place) * p[row]))
        out[row] = highest
    return [float(value) for value in out]


def over_seeds(found: Sequence[Measurement]) -> dict[str, Any]:
    """value, low, high, n, note, seeds: of one training its own interval, of several that of their mean (t)."""
    known = [m for m in found if math.isfinite(m.value)]
    if not known:
        return {"value": None, "low": None, "high": None, "n": 0, "note": found[0].note if found else "", "seeds": []}
    values = np.array([m.value for m in known])
    low, high = known[0].low, known[0].high
    if len(known) > 1:
        _, low, high, _ = _t_test(values)
    return {
        "value": float(values.mean()), "low": low, "high": high, "n": known[0].n, "note": known[0].note,
        "seeds": values.tolist(),
    }

"""The rule that promotes a round: better beyond chance at a level spent over the run, and every guard holds.

Pure functions of measurements. Both models were measured on the same prompts and the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from upturn.errors import UserError
from upturn.statistics.paired import paired_test
from upturn.types import Array, Measurement

Plan = Literal["equal", "open"]
_LEVEL = 0.95  # of the intervals that metrics give
_RESAMPLES = 9_999  # random signs; more where alpha requires a smaller p
_MOST_RESAMPLES = 999_999
_ROUNDING = 1e-9  # 0.72 is at least 0.9 of 0.8, whatever binary fractions say


@dataclass(frozen=True)
class Guard:
    """What must not get worse: limits of one metric. ``at_least`` and ``at_most`` are times the anchor's value.

    ``floor`` and ``ceiling`` are in the metric's own units. The point estimate is held against the limit, not its
    interval: a guard is a margin that a person chose, and demanding significance of harm would let every round take
    a little within its noise.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    floor: float | None = None
    ceiling: float | None = None

    def __post_init__(self) -> None:
        if all(limit is None for limit in (self.at_least, self.at_most, self.floor, self.ceiling)):
            raise ValueError(f"the guard on '{self.metric}' has no limit: at_least, at_most, floor or ceiling")


@dataclass(frozen=True)
class GuardResult:
    """One limit of a guard, held against a round: ``reason`` is a sentence in either case."""

    metric: str
    holds: bool
    value: float | None
    anchor: float | None
    limit: float | None
    reason: str


@dataclass(frozen=True)
class Decision:
    """Promoted or rejected, and why. ``difference`` is new - incumbent in the metric's units, with its 95% interval.

    Numbers that are not known are None, so that the decision can be written as JSON.
    """

    decision: Literal["promoted", "rejected"]
    metric: str
    reason: str
    p: float | None
    alpha: float
    difference: float | None
    low: float | None
    high: float | None
    guards: tuple[GuardResult, ...] = ()


def spend(alpha: float, rounds: int, number: int, plan: Plan = "equal") -> float:
    """The level of round ``number`` (1, 2, …): all rounds together promote by mistake with probability <= ``alpha``.

    ``equal`` gives each of ``rounds`` alpha / rounds (Bonferroni). ``open`` gives alpha / (t (t + 1)), which sums to
    alpha however long the run becomes. The union bound needs no independence. Incumbents promoted on this same noise
    score better on it by selection, which makes later tests stricter, not laxer.

    Raises ValueError for a round outside 1 … rounds (``equal``) or below 1.
    """
    if number < 1 or (plan == "equal" and number > rounds):
        raise ValueError(f"round {number} of {rounds} has no share of alpha")
    return alpha / rounds if plan == "equal" else alpha / (number * (number + 1))


def guard(metric: str, limits: Mapping[str, float], where: str = "gate.guards") -> Guard:
    """A guard from a recipe's mapping. Raises UserError for an unknown limit or none."""
    known = ("at_least", "at_most", "floor", "ceiling")
    for name in limits:
        if name not in known:
            raise UserError(
                f"a guard has no limit '{name}'", where=f"{where}.{metric}.{name}", fix=f"It has: {', '.join(known)}."
            )
    try:
        return Guard(metric, **limits)
    except ValueError as error:
        raise UserError(str(error), where=f"{where}.{metric}") from error


def decide(
    metric: str, new: Mapping[str, Measurement], incumbent: Mapping[str, Measurement],
    anchor: Mapping[str, Measurement], *, better: Mapping[str, str], alpha: float, key: int,
    clusters: Array | None = None, guards: Mapping[str, Mapping[str, float]] | None = None,
) -> Decision:
    """Whether the new model is promoted over the incumbent.

    ``metric`` with a value a sample is tested by :func:`paired_test`, candidates of one prompt kept together by
    ``clusters`` (N,); where the metric's values are not of these N samples (a loss on held-out data) each value is a
    cluster of its own. A metric without values is compared by intervals, see :func:`_by_intervals`. ``alpha`` is this
    round's share (:func:`spend`); ``guards`` are held against ``anchor``, the measurements of the fixed anchor.

    A metric or guard that is undefined (NaN, missing) rejects, with this reason. Raises UserError where
    ``better`` of the metric is neither "higher" nor "lower".
    """
    sign = {"higher": 1.0, "lower": -1.0}.get(better.get(metric, "neither"))
    if sign is None:
        raise UserError(
            f"the gate's metric '{metric}' describes, it is neither better higher nor lower", where="gate.metric",
            fix="Choose another metric.",
        )
    rules = [guard(name, limits) for name, limits in (guards or {}).items()]
    held = tuple(result for rule in rules for result in check(rule, new, anchor))
    mine, other = new.get(metric), incumbent.get(metric)
    for who, found in (("new model", mine), ("incumbent", other)):
        if found is None or math.isnan(found.value):
            why = found.note if found is not None and found.note else "it was not measured"
            return _rejected(metric, f"{metric} of the {who} is not known: {why}", alpha, guards=held)
    assert mine is not None and other is not None
    if mine.values is not None and other.values is not None and len(mine.values) == len(other.values):
        verdict = _by_pairs(metric, mine.values, other.values, sign, alpha, key, clusters)
    else:
        verdict = _by_intervals(metric, mine, other, sign, alpha)
    broken = [result.reason for result in held if not result.holds]
    accepted = verdict.decision == "promoted" and not broken
    kept = f"; {len(held)} guard{'s' * (len(held) > 1)} held" if held and not broken else ""
    reason = verdict.reason + ("; but " + "; ".join(broken) if broken else kept)
    return Decision("promoted" if accepted else "rejected", metric, reason, verdict.p, alpha, verdict.difference,
                    verdict.low, verdict.high, held)


def check(rule: Guard, new: Mapping[str, Measurement], anchor: Mapping[str, Measurement]) -> list[GuardResult]:
    """Every limit of a guard held against the new model: at least one result, each with its reason."""
    name = rule.metric
    mine, fixed = new.get(name), anchor.get(name)
    value, base = _number(mine), _number(fixed)
    if value is None:
        why = mine.note if mine is not None and mine.note else "it was not measured"
        return [GuardResult(name, False, None, base, None, f"{name} is not known: {why}")]
    results = []
    for ratio, above in ((rule.at_least, True), (rule.at_most, False)):
        if ratio is None:
            continue
        if base is None or base < 0:
            problem = "is not known" if base is None else f"is {base:.4g}, and a share of a negative number is no limit"
            results.append(GuardResult(
                name, False, value, base, None, f"{name} of the anchor {problem}: use floor or ceiling"
            ))
            continue
        results.append(_limit(name, value, base, ratio * base, above, f"{ratio:g} of the anchor's {base:.4g}"))
    for limit, above in ((rule.floor, True), (rule.ceiling, False)):
        if limit is not None:
            results.append(_limit(name, value, base, limit, above, "the limit"))
    return results


def _limit(name: str, value: float, base: float | None, limit: float, above: bool, of_what: str) -> GuardResult:
    slack = _ROUNDING * abs(limit)
    holds = value >= limit - slack if above else value <= limit + slack
    relation = ("not " if holds else "") + ("below" if above else "above")
    return GuardResult(name, holds, value, base, limit, f"{name} {value:.4g} is {relation} {limit:.4g}, {of_what}")


def _number(found: Measurement | None) -> float | None:
    return None if found is None or not math.isfinite(found.value) else found.value


def _rejected(
    metric: str, reason: str, alpha: float, difference: float | None = None, guards: tuple[GuardResult, ...] = ()
) -> Decision:
    return Decision("rejected", metric, reason, None, alpha, difference, None, None, guards)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_pairs(
    metric: str, new: Array, old: Array, sign: float, alpha: float, key: int, clusters: Array | None
) -> Decision:
    """The one-sided paired test of the values; unscored pairs are left out and counted in the reason."""
    gained = sign * (np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64))
    groups = clusters if clusters is not None and len(clusters) == len(gained) else None
    resamples = min(max(_RESAMPLES, math.ceil(20 / alpha)), _MOST_RESAMPLES)
    found = paired_test(gained, key, groups, level=_LEVEL, resamples=resamples)
    if found.pairs == 0:
        return _rejected(metric, f"{metric}: no sample has a value from both models", alpha)
    difference = sign * found.difference
    low, high = (found.low, found.high) if sign > 0 else (-found.high, -found.low)
    word = "better" if found.p <= alpha else "not better beyond chance"
    interval = f" ({low:.3g} to {high:.3g})" if math.isfinite(low) else ""
    reason = f"{metric} {word}: {difference:+.3g}{interval}, p = {found.p:.2g} against {alpha:.2g}"
    if found.clusters == 0:
        reason = f"{metric} not better: the two models have equal values on every sample"
    elif found.smallest > alpha:
        reason += f"; only {found.clusters} prompts differ, whose least p is {found.smallest:.2g}: evaluate on more"
    if found.dropped:
        reason += f"; {found.dropped} of {len(gained)} pairs left out, unscored"
    return Decision("promoted" if found.p <= alpha else "rejected", metric, reason, found.p, alpha,
                    _finite(difference), _finite(low), _finite(high))


def _by_intervals(metric: str, new: Measurement, old: Measurement, sign: float, alpha: float) -> Decision:
    """Better only if the new interval lies wholly beyond the incumbent's, both widened to the level alpha.

    The facing half-widths are read as 1.96 standard errors each. Their sum bounds the standard error of the difference
    whatever the dependence of the two, so the test is valid and conservative: it needs about 1.4 times the
    difference that two independent estimates of equal error would need. Intervals are never narrowed below 95%.
    """
    from statistics import NormalDist

    normal = NormalDist()
    difference = new.value - old.value
    facing = (new.value - new.low, old.high - old.value) if sign > 0 else (new.high - new.value, old.value - old.low)
    spread = sum(facing)
    if not math.isfinite(spread):
        return _rejected(metric, f"{metric} has no interval: chance cannot be ruled out", alpha, _finite(difference))
    needed = max(normal.inv_cdf(1 - alpha) / normal.inv_cdf((1 + _LEVEL) / 2), 1.0) * spread
    gain = sign * difference
    errors = gain / spread if spread > 0 else math.copysign(math.inf, gain if gain else -1.0)
    p = 1 - normal.cdf(normal.inv_cdf((1 + _LEVEL) / 2) * errors)
    accepted = gain > needed
    word = "better" if accepted else "not better beyond chance"
    reason = f"{metric} {word}: {difference:+.3g} by intervals, more than {needed:.3g} needed at level {alpha:.2g}"
    return Decision("promoted" if accepted else "rejected", metric, reason, p, alpha, difference,
                    difference - spread, difference + spread)

"""Proxy reward against gold reward: whether what is trained on still leads where people want to go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from upturn.config import components
from upturn.protocols import Metric
from upturn.report import scatter, titles
from upturn.report.facts import Column, Difference, Facts

_NAMED = 2  # rounds whose figures fit in a sentence


@dataclass(frozen=True)
class Against:
    """One chart for each gold reward; ``hacked`` is empty where nothing speaks of reward hacking."""

    title: str
    figure: Markup
    hacked: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Hacked:
    """A round that raised the proxy over ``older``, and not the gold reward."""

    newer: Column
    older: Column
    proxy: Difference
    gold: Difference


def against(facts: Facts) -> list[Against]:
    """Of every gold reward that was measured, with the reward trained on of the same samples; often there is none.

    Gao, Schulman & Hilton 2023, "Scaling Laws for Reward Model Overoptimization": a proxy that is optimised too far
    goes on to rise while the gold reward stays, or falls.
    """
    found = []
    for gold in facts.metric_names:
        of_gold = _metric(facts, gold)
        if of_gold is None or not of_gold.is_gold_reward:
            continue
        group = gold.rpartition("/")[0]
        beside = [n for n in facts.metric_names if _averages(facts, n) and n.rpartition("/")[0] == group]
        points = [_point(column, gold, beside[0] if beside else None) for column in facts.columns]
        figure = scatter.figure(points, facts.kept, "proxy reward", "gold reward")
        if figure is not None:
            without = [c.title for c, point in zip(facts.columns, points, strict=True) if point is None]
            title = titles.term(gold, facts.specs.get(gold)).title
            hacked = _said(_hacked(facts, gold, beside[0])) if beside else ""
            found.append(Against(title, figure, hacked, tuple(_notes(facts, beside, without))))
    return found


def _metric(facts: Facts, name: str) -> type[Metric] | None:
    spec = facts.specs.get(name)
    return components.installed("metric", str(spec["name"]) if spec is not None else name.rpartition("/")[2])


def _averages(facts: Facts, name: str) -> bool:
    metric = _metric(facts, name)
    return metric is not None and metric.averages_reward


def _point(column: Column, gold: str, proxy: str | None) -> scatter.Point | None:
    """Where a model stands; a proxy without a metric of its own is the gold metric's detail, without an interval."""
    measured = column.metrics.get(gold) or {}
    own = (column.metrics.get(proxy) if proxy else {"value": (measured.get("details") or {}).get("proxy")}) or {}
    if measured.get("value") is None or own.get("value") is None:
        return None
    return scatter.Point(column, own, measured)


def _hacked(facts: Facts, gold: str, proxy: str) -> list[_Hacked]:
    """Rounds after which the proxy is higher beyond chance and the gold reward is not.

    Each against the model that it started from, and, for what comes in small steps, against round 0.
    """
    found = []
    for newer in facts.columns:
        for older in _before(facts, newer, gold, proxy):
            rose = _change(facts, newer, older, proxy)
            gained = _change(facts, newer, older, gold)
            if rose is not None and gained is not None and rose.low > 0 and gained.low <= 0:
                found.append(_Hacked(newer, older, rose, gained))
                break
    return found


def _before(facts: Facts, newer: Column, gold: str, proxy: str) -> list[Column]:
    """The model that a round was tested against, and the first: round 0, or where that has no proxy, what came next."""
    if newer.round is None or newer.round == 0:
        return []
    stood = [
        c for c in facts.columns[: facts.columns.index(newer)]
        if (c.decision == "promoted" or c.round == 0) and _point(c, gold, proxy) is not None
    ]
    return stood if len(stood) < 2 else [stood[-1], stood[0]]


def _change(facts: Facts, newer: Column, older: Column, name: str) -> Difference | None:
    """Paired where a value a sample is stored; else from the two intervals, as if of different samples."""
    paired = facts.difference(newer, older, name)
    if paired is not None:
        return paired
    now, then = _ends(newer.metrics.get(name) or {}), _ends(older.metrics.get(name) or {})
    if now is None or then is None:
        return None
    (value, low, high), (before, bottom, top) = now, then
    down, up = math.hypot(value - low, top - before), math.hypot(high - value, before - bottom)
    return Difference(value - before, value - before - down, value - before + up)


def _ends(measured: Mapping[str, Any]) -> tuple[float, float, float] | None:
    value, low, high = (measured.get(part) for part in ("value", "low", "high"))
    return None if value is None or low is None or high is None else (float(value), float(low), float(high))


def _said(found: Sequence[_Hacked]) -> str:
    """One sentence; of many rounds the one with the greatest gain of the proxy is told in figures."""
    if not found:
        return ""
    fell = any(h.gold.high < 0 for h in found)
    head = "Reward hacking" if fell else "A sign of reward hacking"
    if len(found) <= _NAMED:
        return f"{head}: {'; '.join(_one(h) for h in found)}."
    most = max(found, key=lambda h: h.proxy.value)
    rounds = titles.listed([str(h.newer.round) for h in found])
    return f"{head} in rounds {rounds}: the proxy reward rises, the gold reward does not. The most: {_one(most)}."


def _one(h: _Hacked) -> str:
    what = "falls" if h.gold.high < 0 else "does not rise beyond chance"
    than = "round 0" if h.older.round == 0 else h.older.title
    return (
        f"in round {h.newer.round} the proxy reward rises by {_interval(h.proxy)} over {than}, "
        f"and the gold reward {what} ({_interval(h.gold)})"
    )


def _interval(change: Difference) -> str:
    places = titles.decimals((change.high - change.low) / 2)
    value, low, high = (titles.signed(v, places) for v in (change.value, change.low, change.high))
    return f"{value} [{low}, {high}]"


def _notes(facts: Facts, beside: Sequence[str], without: list[str]) -> list[str]:
    notes = [f"Not drawn, because one of the two was not measured: {titles.listed(without)}."] if without else []
    if not beside:
        notes.append("The proxy has no interval here, and nothing is tested: measure 'reward' as well.")
    rounds = facts.recipe.rounds
    asked = {str(spec.get("model", "")) for spec in rounds.score} if rounds is not None else set()
    moving = [name for name, model in facts.recipe.models.items() if model.refit is not None and name in asked]
    if moving:
        notes.append(
            f"“{moving[0]}” is fitted anew each round: it is another judge in each, and comparisons leave its level "
            "free, so that part of a change along the proxy's axis may be the judge's and not the policy's."
        )
    return notes

"""Section: proxy reward against gold reward, and a warning where training hacks the reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.config import components
from upturn.protocols import Metric
from upturn.report import scatter, titles
from upturn.report.facts import Column, Facts, PairedDifference
from upturn.report.section import Section

_NAMED = 2  # rounds whose figures fit in a sentence


@dataclass(frozen=True)
class RewardHacking(Section):
    """Gold reward over proxy reward, model by model."""

    title: ClassVar[str] = "Proxy reward against gold reward"
    contents: ClassVar[str] = "Proxy and gold reward"
    anchor: ClassVar[str] = "gold"
    order: ClassVar[int] = 40

    def render(self, facts: Facts) -> Markup | None:
        charts = facts.computed(reward_charts)
        return self.fill(charts=charts) if charts else None

    def warnings(self, facts: Facts) -> list[str]:
        return [chart.hacked for chart in facts.computed(reward_charts) if chart.hacked]


@dataclass(frozen=True)
class RewardChart:
    """One chart for each gold reward; ``hacked`` is empty if there is no sign of reward hacking."""

    title: str
    figure: Markup
    hacked: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Hacked:
    """A round that raised the proxy reward over ``older``, and not the gold reward."""

    newer: Column
    older: Column
    proxy: PairedDifference
    gold: PairedDifference


def reward_charts(facts: Facts) -> list[RewardChart]:
    """Of every gold reward that was measured, against the training reward of the same samples; often there is none.

    Gao, Schulman & Hilton 2023, "Scaling Laws for Reward Model Overoptimization": a proxy that is optimised too far
    keeps rising while the gold reward stagnates or falls.
    """
    found = []
    for gold in facts.metric_names:
        of_gold = _metric(facts, gold)
        if of_gold is None or not of_gold.is_gold_reward:
            continue
        group = gold.rpartition("/")[0]
        paired = [n for n in facts.metric_names if _averages(facts, n) and n.rpartition("/")[0] == group]
        points = [_point(column, gold, paired[0] if paired else None) for column in facts.columns]
        figure = scatter.figure(points, facts.kept, "proxy reward", "gold reward")
        if figure is not None:
            without = [c.title for c, point in zip(facts.columns, points, strict=True) if point is None]
            title = titles.term(gold, facts.specs.get(gold)).title
            hacked = _sentence(_hacked(facts, gold, paired[0])) if paired else ""
            found.append(RewardChart(title, figure, hacked, tuple(_notes(facts, paired, without))))
    return found


def _metric(facts: Facts, name: str) -> type[Metric] | None:
    spec = facts.specs.get(name)
    return components.installed("metric", str(spec["name"]) if spec is not None else name.rpartition("/")[2])


def _averages(facts: Facts, name: str) -> bool:
    metric = _metric(facts, name)
    return metric is not None and metric.averages_reward


def _point(column: Column, gold: str, proxy: str | None) -> scatter.Point | None:
    """A model in the chart; a proxy without a metric of its own is a detail of the gold metric, without an interval."""
    measured = column.metrics.get(gold) or {}
    own = (column.metrics.get(proxy) if proxy else {"value": (measured.get("details") or {}).get("proxy")}) or {}
    if measured.get("value") is None or own.get("value") is None:
        return None
    return scatter.Point(column, own, measured)


def _hacked(facts: Facts, gold: str, proxy: str) -> list[_Hacked]:
    """Rounds after which the proxy reward is higher beyond chance and the gold reward is not.

    Each is compared with the model that it started from and, because the change may come in small steps, with round 0.
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
    """The model that a round was tested against, and round 0; without a proxy there, the first model after it."""
    if newer.round is None or newer.round == 0:
        return []
    incumbents = [
        c for c in facts.columns[: facts.columns.index(newer)]
        if (c.decision == "promoted" or c.round == 0) and _point(c, gold, proxy) is not None
    ]
    return incumbents if len(incumbents) < 2 else [incumbents[-1], incumbents[0]]


def _change(facts: Facts, newer: Column, older: Column, name: str) -> PairedDifference | None:
    """Paired if a value of each sample is stored; else from the two intervals, as of independent samples."""
    paired = facts.difference(newer, older, name)
    if paired is not None:
        return paired
    now, then = _ends(newer.metrics.get(name) or {}), _ends(older.metrics.get(name) or {})
    if now is None or then is None:
        return None
    (value, low, high), (before, bottom, top) = now, then
    down, up = math.hypot(value - low, top - before), math.hypot(high - value, before - bottom)
    return PairedDifference(value - before, value - before - down, value - before + up)


def _ends(measured: Mapping[str, Any]) -> tuple[float, float, float] | None:
    value, low, high = (measured.get(part) for part in ("value", "low", "high"))
    return None if value is None or low is None or high is None else (float(value), float(low), float(high))


def _sentence(found: Sequence[_Hacked]) -> str:
    """One sentence; of many rounds, figures of the one with the greatest gain of the proxy reward."""
    if not found:
        return ""
    fell = any(h.gold.high < 0 for h in found)
    head = "Reward hacking" if fell else "A sign of reward hacking"
    if len(found) <= _NAMED:
        return f"{head}: {'; '.join(_one(h) for h in found)}."
    most = max(found, key=lambda h: h.proxy.value)
    rounds = titles.listed([str(h.newer.round) for h in found])
    return f"{head} in rounds {rounds}: the proxy reward rises, the gold reward does not. The largest: {_one(most)}."


def _one(h: _Hacked) -> str:
    what = "falls" if h.gold.high < 0 else "does not rise beyond chance"
    than = "round 0" if h.older.round == 0 else h.older.title
    return (
        f"in round {h.newer.round} the proxy reward rises by {_interval(h.proxy)} over {than}, "
        f"and the gold reward {what} ({_interval(h.gold)})"
    )


def _interval(change: PairedDifference) -> str:
    places = titles.decimals((change.high - change.low) / 2)
    value, low, high = (titles.signed(v, places) for v in (change.value, change.low, change.high))
    return f"{value} [{low}, {high}]"


def _notes(facts: Facts, paired: Sequence[str], without: list[str]) -> list[str]:
    notes = [f"Not drawn, because one of the rewards was not measured: {titles.listed(without)}."] if without else []
    if not paired:
        notes.append("The proxy has no interval here, and nothing is tested: add 'reward' to the metrics.")
    rounds = facts.recipe.rounds
    used = {str(spec.get("model", "")) for spec in rounds.score} if rounds is not None else set()
    moving = [name for name, model in facts.recipe.models.items() if model.refit is not None and name in used]
    if moving:
        notes.append(
            f"“{moving[0]}” is fitted again in each round, and comparisons do not determine its level: part of a "
            "change along the proxy's axis may come from the scorer and not from the policy."
        )
    return notes

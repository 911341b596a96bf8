"""Section: what each stage before the rounds did to the model, metric by metric."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.facts import Column, Facts
from upturn.report.section import Section


@dataclass(frozen=True)
class StageChanges(Section):
    """Each metric before and after each stage, with the paired difference where the metric has one."""

    title: ClassVar[str] = "What each stage did"
    contents: ClassVar[str] = "Stages"
    anchor: ClassVar[str] = "stages"
    order: ClassVar[int] = 15

    def render(self, facts: Facts) -> Markup | None:
        found = stage_changes(facts)
        return self.fill(changes=found) if found else None


@dataclass(frozen=True)
class Change:
    """One metric before a stage and after it; ``better`` is "better", "worse" or "" (not beyond chance)."""

    stage: str
    before_stage: str
    metric: str
    before: str
    after: str
    difference: str
    better: str


def stage_changes(facts: Facts) -> list[Change]:
    """A row for each stage after the first measured model and each metric that both models have."""
    measured = [column for column in facts.columns if column.decision == "stage"]
    return [
        _change(facts, before, after, name)
        for before, after in pairwise(measured)
        for name in facts.metric_names
        if all(column.metrics.get(name, {}).get("value") is not None for column in (before, after))
    ]


def _change(facts: Facts, before: Column, after: Column, name: str) -> Change:
    term = titles.term(name, facts.specs.get(name))
    old, new = before.metrics[name], after.metrics[name]
    paired = facts.difference(after, before, name)
    if paired is not None:
        places = titles.decimals((paired.high - paired.low) / 2)
        difference = f"{titles.signed(paired.value, places)} ({titles.signed(paired.low, places)} to " \
                     f"{titles.signed(paired.high, places)})"
        beyond, rises = paired.low > 0 or paired.high < 0, paired.value > 0
    else:
        difference = titles.signed(new["value"] - old["value"], 3)
        known = None not in (old.get("low"), old.get("high"), new.get("low"), new.get("high"))
        beyond, rises = known and (new["low"] > old["high"] or new["high"] < old["low"]), new["value"] > old["value"]
    better = ""
    if beyond and term.better != "neither":
        better = "better" if rises == (term.better == "higher") else "worse"
    return Change(
        after.title, before.title, term.title, titles.interval(old), titles.interval(new), difference, better
    )

"""Section: what the gate decided for each round, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.facts import Facts
from upturn.report.section import Section


@dataclass(frozen=True)
class RoundDecisions(Section):
    """Promoted and rejected rounds with the gate's reasons."""

    title: ClassVar[str] = "Promoted, rejected and skipped rounds"
    contents: ClassVar[str] = "Rounds"
    anchor: ClassVar[str] = "rounds"
    order: ClassVar[int] = 60

    def render(self, facts: Facts) -> Markup | None:
        found = decisions(facts)
        return self.fill(decisions=found) if found else None


@dataclass(frozen=True)
class RoundDecision:
    """``state`` is promoted, rejected, or how far the round has come; ``guards`` are (holds, reason)."""

    title: str
    state: str
    reason: str
    test: str
    guards: tuple[tuple[bool, str], ...]


def decisions(facts: Facts) -> list[RoundDecision]:
    """Of every round that the recipe requires."""
    found = []
    for r in facts.status.rounds[1:]:
        if r.gate is None:
            state = {"pending": "not started", "running": "unfinished"}.get(r.state, r.state)
            found.append(RoundDecision(f"Round {r.round}", state, "", "", ()))
            continue
        guards = tuple((bool(g.get("holds")), str(g.get("reason", ""))) for g in r.gate.get("guards") or ())
        found.append(RoundDecision(
            f"Round {r.round}", str(r.gate.get("decision")), str(r.gate.get("reason", "")), _test(r.gate), guards
        ))
    return found


def _test(gate: Mapping[str, Any]) -> str:
    if gate.get("difference") is None or gate.get("metric") is None:
        return ""
    low, high = gate.get("low"), gate.get("high")
    places = titles.decimals((high - low) / 2) if low is not None and high is not None else 3
    against = _model_name(str(gate.get("incumbent", "")))
    change = titles.signed(gate["difference"], places)
    text = f"Tested against {against or 'the model before'}: {gate['metric']} {change}"
    if low is not None and high is not None:
        text += f" ({titles.signed(low, places)} to {titles.signed(high, places)})"
    if gate.get("p") is not None and gate.get("alpha") is not None:
        text += f". p, the probability of such a gain by chance, is {titles.number(gate['p'])}"
        text += f"; {titles.number(gate['alpha'])} or less was required"
    return f"{text}."


def _model_name(unit: str) -> str:
    last = unit.rpartition("/")[2]
    return f"round {int(last)}" if last.isdigit() else last

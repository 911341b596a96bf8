"""What came of the run, in a few sentences at the top of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upturn.report import titles
from upturn.report.facts import Column, Facts

_NAMED = 3  # rejected rounds whose reasons fit at the top of the page


@dataclass(frozen=True)
class Step:
    """A model of the headline row: what it is, its value and interval."""

    title: str
    value: str
    interval: str
    kept: bool


@dataclass(frozen=True)
class Verdict:
    """``lead`` is the first sentence; ``sentences`` follow; ``state`` says what is not finished."""

    lead: str
    sentences: tuple[str, ...]
    state: str
    alarm: bool
    steps: tuple[Step, ...]
    metric: str
    meaning: str


def verdict(facts: Facts, warnings: Sequence[str] = ()) -> Verdict:
    """At any time: of a run that has not begun it says so. ``warnings`` are sentences that nobody should miss."""
    state, alarm = _state(facts)
    kept, name = facts.kept, facts.headline
    if kept is None or name is None:
        lead = "Nothing has been measured yet."
        if facts.columns:
            lead = f"The rounds have not begun: so far there is the model after {facts.columns[-1].title}."
        return Verdict(lead, (), state, alarm, (), "", "")
    term = titles.term(name, facts.specs.get(name))
    sentences = [*_gains(facts, kept, name, term), *_rejected(facts), *warnings]
    return Verdict(
        _lead(facts, kept), tuple(sentences), state, alarm, tuple(_steps(facts, kept, name)), term.title, term.meaning
    )


def _state(facts: Facts) -> tuple[str, bool]:
    seen = facts.status
    message = seen.message.rstrip(".")
    after = f": {message}." if message else "."
    if seen.state == "done":
        return "", False
    if seen.state == "failed":
        return f"The run failed{after} All that was finished before is kept and shown here.", True
    if seen.state == "waiting":
        return f"The run is waiting{after}", False
    if facts.run.holder() is None:
        return "The run was stopped before its end; run it again and it goes on from here.", True
    return f"The run is under way{after} This page shows what was finished when it was made.", False


def _lead(facts: Facts, kept: Column) -> str:
    judged = [c for c in facts.columns if c.decision in {"promoted", "rejected"}]
    if kept.decision == "promoted":
        gated = facts.recipe.gate is not None
        count = sum(c.decision == "promoted" for c in judged)
        if not gated:
            return f"Round {kept.round} is the newest: no gate was asked for, so every round was taken."
        if count == len(judged):
            every = f": all {count} rounds were better than the one before" if count > 1 else ""
            return f"Round {kept.round} is kept{every}."
        return f"Round {kept.round} is kept; {count} of {len(judged)} rounds passed the gate."
    if not judged:
        return f"The model after {kept.title} is round 0; no round has been judged yet."
    what = "the one round" if len(judged) == 1 else f"none of the {len(judged)} rounds"
    passed = "did not pass" if len(judged) == 1 else "passed"
    return f"Round 0, the model after {_last_stage(facts)}, is kept: {what} {passed} the gate."


def _last_stage(facts: Facts) -> str:
    return facts.recipe.stages[-1].name


def _baselines(facts: Facts, kept: Column) -> list[Column]:
    """Round 0 and the stages before it, the newest first, without the kept model."""
    return [c for c in reversed(facts.columns) if c.decision == "stage" and c.unit != kept.unit]


def _gains(facts: Facts, kept: Column, name: str, term: titles.Term) -> list[str]:
    measured = kept.metrics.get(name)
    if measured is None or measured.get("value") is None:
        why = f" ({measured['note']})" if measured and measured.get("note") else ""
        return [f"{term.title} of it could not be measured{why}."]
    parts = []
    for older in _baselines(facts, kept):
        change = _change(facts, kept, older, name, term)
        if change:
            parts.append(change)
    said = f"Its {_lower(term.title)} is {titles.interval(measured)}"
    return [f"{said}: {titles.listed(parts)}." if parts else f"{said}."]


def _change(facts: Facts, kept: Column, older: Column, name: str, term: titles.Term) -> str | None:
    measured, before = kept.metrics[name], older.metrics.get(name)
    if before is None or before.get("value") is None:
        return None
    what = "round 0" if older.round == 0 else f"the model after {older.title}"
    paired = facts.difference(kept, older, name)
    if paired is None:
        return f"{_word(measured['value'] - before['value'], term)} than {what} ({titles.interval(before)})"
    places = titles.decimals((paired.high - paired.low) / 2)
    ends = f"{titles.signed(paired.low, places)} to {titles.signed(paired.high, places)}"
    value = titles.signed(paired.value, places)
    if paired.low <= 0 <= paired.high:
        return f"not different from {what} beyond chance ({value}; {ends})"
    return f"{_word(paired.value, term)} than {what} by {value} ({ends})"


def _word(change: float, term: titles.Term) -> str:
    if term.better == "neither":
        return "higher" if change > 0 else "lower"
    return "better" if (change > 0) == (term.better == "higher") else "worse"


def _rejected(facts: Facts) -> list[str]:
    """One sentence a round, its reason within; many rounds are only named."""
    held = [r for r in facts.status.rounds if r.gate and r.gate.get("decision") == "rejected"]
    if len(held) > _NAMED:
        return [f"Rounds {titles.listed([str(r.round) for r in held])} were rejected; their reasons stand below."]
    return [f"Round {r.round} was rejected: {str((r.gate or {}).get('reason', '')).rstrip('.')}." for r in held]


def _steps(facts: Facts, kept: Column, name: str) -> list[Step]:
    """The stages and the kept model."""
    shown = [c for c in facts.columns if c.decision == "stage"]
    if kept not in shown:
        shown.append(kept)
    return [
        Step(c.full_title, *_figure(c.metrics[name]), c.unit == kept.unit)
        for c in shown if c.metrics.get(name, {}).get("value") is not None
    ]


def _figure(measured: Mapping[str, Any]) -> tuple[str, str]:
    value, _, rest = titles.interval(measured).partition(" ")
    return value, rest


def _lower(title: str) -> str:
    return title if title[:1].isupper() and title.startswith(("Fréchet", "Vendi")) else title[:1].lower() + title[1:]

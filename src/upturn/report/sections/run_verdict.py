"""Section: the result of the run in a few sentences, at the top of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from markupsafe import Markup

from upturn.report import titles
from upturn.report.facts import Column, Facts
from upturn.report.section import Section, all_sections
from upturn.runs.status import RoundStatus
from upturn.store.promotion import SKIPPED
from upturn.store.units import model_unit

_NAMED = 3  # rejected rounds whose reasons fit at the top of the page


@dataclass(frozen=True)
class RunVerdict(Section):
    """The verdict, with the warnings of all sections."""

    title: ClassVar[str] = "Verdict"
    anchor: ClassVar[str] = "verdict"
    order: ClassVar[int] = 0
    in_header: ClassVar[bool] = True

    def render(self, facts: Facts) -> Markup | None:
        warnings = [warning for section in all_sections() for warning in section.warnings(facts)]
        return self.fill(verdict=verdict(facts, warnings))


@dataclass(frozen=True)
class HeadlineFigure:
    """The main metric of one model, with its interval."""

    title: str
    value: str
    interval: str
    kept: bool


@dataclass(frozen=True)
class VerdictText:
    """``lead`` is the first sentence, ``sentences`` follow; ``state`` describes a run that has not finished."""

    lead: str
    sentences: tuple[str, ...]
    state: str
    alarm: bool
    figures: tuple[HeadlineFigure, ...]
    metric: str
    meaning: str


def verdict(facts: Facts, warnings: Sequence[str] = ()) -> VerdictText:
    """At any time, also of a run that has not started. ``warnings`` are sentences that must not be missed."""
    state, alarm = _state(facts)
    kept, name = facts.kept, facts.headline
    if kept is None or name is None:
        lead = "Nothing has been measured yet."
        if facts.columns:
            lead = f"No round has started: the newest model is the one after {facts.columns[-1].title}."
        elif "policy" not in facts.recipe.models:
            lead = _fitted(facts, facts.recipe.main_model)
        elif not facts.recipe.evaluate:
            lead = "Nothing is measured: the recipe has no evaluation. The losses of its trainings are below."
        return VerdictText(lead, (), state, alarm, (), "", "")
    term = titles.term(name, facts.specs.get(name))
    sentences = [*_gains(facts, kept, name, term), *_rejected(facts), *warnings]
    return VerdictText(
        _lead(facts, kept), tuple(sentences), state, alarm, tuple(_headline(facts, kept, name)), term.title,
        term.meaning,
    )


def _fitted(facts: Facts, name: str) -> str:
    """Of a run that trains a reward model or a classifier alone."""
    found = facts.info(model_unit(name), "fit")
    if not found:
        return f"'{name}' is not trained yet."
    accuracy = (found.get("assessment") or {}).get("accuracy")
    if accuracy is None:
        return f"'{name}' is trained."
    pairs = titles.plural(int(found["assessment"]["pairs"]), "held-out pair")
    return f"'{name}' is trained: it orders {titles.interval(accuracy)} of {pairs} right."


def _state(facts: Facts) -> tuple[str, bool]:
    status = facts.status
    message = status.message.rstrip(".")
    after = f": {message}." if message else "."
    if status.state == "done":
        return "", False
    if status.state == "failed":
        return f"The run failed{after} The steps that finished before are stored and displayed here.", True
    if status.state == "waiting":
        return f"The run is waiting{after}", False
    if facts.run.holder() is None:
        return "The run was stopped before its end. The same command resumes it.", True
    return f"The run is in progress{after} This page contains the steps that were finished when it was written.", False


def _lead(facts: Facts, kept: Column) -> str:
    decided = [c for c in facts.columns if c.decision in {"promoted", "rejected"}]
    if kept.decision == "promoted":
        gated = facts.recipe.gate is not None
        count = sum(c.decision == "promoted" for c in decided)
        if not gated:
            return f"Round {kept.round} is the newest: the recipe has no gate, so every round is promoted."
        if count == len(decided):
            every = f": all {count} rounds were better than the one before" if count > 1 else ""
            return f"Round {kept.round} is kept{every}."
        return f"Round {kept.round} is kept; {count} of {len(decided)} rounds passed the gate."
    if not decided and facts.recipe.rounds is None:
        return f"The model after {kept.title}: the recipe has no rounds."
    if not decided:
        return f"The model after {kept.title} is round 0; the gate has not decided on a round yet."
    what = "the one round" if len(decided) == 1 else f"none of the {len(decided)} rounds"
    passed = "did not pass" if len(decided) == 1 else "passed"
    return f"Round 0, the model after {_last_stage(facts)}, is kept: {what} {passed} the gate."


def _last_stage(facts: Facts) -> str:
    return facts.recipe.all_stages[-1].name


def _baselines(facts: Facts, kept: Column) -> list[Column]:
    """Round 0 and the stages before it, the newest first, without the kept model."""
    return [c for c in reversed(facts.columns) if c.decision == "stage" and c.unit != kept.unit]


def _gains(facts: Facts, kept: Column, name: str, term: titles.Term) -> list[str]:
    measured = kept.metrics.get(name)
    if measured is None or measured.get("value") is None:
        why = f" ({measured['note']})" if measured and measured.get("note") else ""
        return [f"{term.title} could not be measured{why}."]
    parts = []
    for older in _baselines(facts, kept):
        change = _change(facts, kept, older, name, term)
        if change:
            parts.append(change)
    text = f"Its {_lower(term.title)} is {titles.interval(measured)}"
    return [f"{text}: {titles.listed(parts)}." if parts else f"{text}."]


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
    """One sentence for each rejected or skipped round with its reason; many rounds are only listed."""
    rejected = [r for r in facts.status.rounds if r.gate and r.gate.get("decision") == "rejected"]
    skipped = [r for r in facts.status.rounds if r.gate and r.gate.get("decision") == SKIPPED]
    return [*_listed(rejected, "rejected"), *_listed(skipped, "skipped")]


def _listed(rounds: Sequence[RoundStatus], word: str) -> list[str]:
    if len(rounds) > _NAMED:
        return [f"Rounds {titles.listed([str(r.round) for r in rounds])} were {word}; the reasons are below."]
    return [f"Round {r.round} was {word}: {str((r.gate or {}).get('reason', '')).rstrip('.')}." for r in rounds]


def _headline(facts: Facts, kept: Column, name: str) -> list[HeadlineFigure]:
    """The stages and the kept model."""
    models = [c for c in facts.columns if c.decision == "stage"]
    if kept not in models:
        models.append(kept)
    return [
        HeadlineFigure(c.full_title, *_figure(c.metrics[name]), c.unit == kept.unit)
        for c in models if c.metrics.get(name, {}).get("value") is not None
    ]


def _figure(measured: Mapping[str, Any]) -> tuple[str, str]:
    value, _, rest = titles.interval(measured).partition(" ")
    return value, rest


def _lower(title: str) -> str:
    return title if title[:1].isupper() and title.startswith(("Fréchet", "Vendi")) else title[:1].lower() + title[1:]

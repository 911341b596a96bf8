"""Section: who voted, how far annotators agree, which of them are suspicious, and which models they prefer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from upturn.annotation.statistics.aggregation import ALL_BAD, TIED, WINNER, Outcomes, by_majority
from upturn.annotation.statistics.agreement import agreement
from upturn.annotation.statistics.annotator_profile import ProfileCheck
from upturn.annotation.statistics.careless import checks
from upturn.annotation.statistics.gold import GoldRecord, Weights, on_gold, on_repeats, weights
from upturn.annotation.statistics.influence import Shares, leave_out, shares
from upturn.annotation.statistics.ranking import Ranking, ranking
from upturn.export.preferences_voted import sources_of, votes_so_far
from upturn.report import svg
from upturn.report import titles as words
from upturn.report.facts import Facts
from upturn.report.section import Section
from upturn.types import Array, Measurement, Votes

_MOST_ROWS = 30  # of the table of annotators, those with the largest share first
_ROW, _NAME = 26, 120  # height of a row of the ranking, width of its names


@dataclass(frozen=True)
class HumanFeedback(Section):
    """Annotators, their agreement and their influence."""

    title: ClassVar[str] = "Human feedback"
    anchor: ClassVar[str] = "votes"
    order: ClassVar[int] = 100

    def render(self, facts: Facts) -> Markup | None:
        votes = votes_so_far(facts.run)
        if votes is None:
            return None
        units = {record.info.get("model"): record.unit for record in facts.run.records() if "model" in record.info}
        models = {name: units.get(source, source) for name, source in sources_of(facts.run).items()}
        return self.fill(found=summary(votes, models))


@dataclass(frozen=True)
class AnnotatorRow:
    """A row of the table of annotators, as text."""

    name: str
    team: str
    votes: str
    share: str
    gold: str
    repeats: str
    weight: str
    findings: str


@dataclass(frozen=True)
class FeedbackSummary:
    """Text, figures and counts.

    agreement: (mode, alpha, raw agreement, its data);  outcomes: (what, how many)
    unchecked: why a check did not run;  without: (team, votes, tasks with another outcome)
    left_out: (reason, number of votes);  notes: about the ranking
    """

    lead: str
    warnings: tuple[str, ...]
    agreement: tuple[tuple[str, str, str, str], ...]
    annotators: tuple[AnnotatorRow, ...]
    others: int
    unchecked: tuple[str, ...]
    outcomes: tuple[tuple[str, int], ...]
    left_out: tuple[tuple[str, int], ...]
    without: tuple[tuple[str, str, str], ...]
    figure: Markup | None
    notes: tuple[str, ...]


def summary(votes: Votes, models: Mapping[str, str] | None = None) -> FeedbackSummary:
    """``models``: sample id -> the model that it comes from; they are ranked if votes compare several."""
    found = checks(votes)
    people = weights(votes, found=found)
    weight = people.of(votes)
    outcomes, deciders = by_majority(votes, weight), shares(votes, weights=weight)
    ranked = ranking(votes, models, weight) if models and len(set(models.values())) > 1 else None
    agreement_rows = tuple(
        (one.mode, _interval(one.alpha), _interval(one.raw, percent=True),
         f"{one.people} annotators, {words.plural(one.tasks, 'task')} with several votes")
        for one in agreement(votes)
    )
    lead = (
        f"{words.plural(int(deciders.votes.sum()), 'vote')} of {words.plural(len(deciders.names), 'annotator')} "
        f"{'counts' if int(deciders.votes.sum()) == 1 else 'count'}. The training data is decided as if by "
        f"{deciders.in_effect:.1f} annotators of equal weight."
    )
    annotators = _annotators(votes, people, found, deciders)
    return FeedbackSummary(
        lead, deciders.warnings() if len(deciders.names) > 1 else (), agreement_rows, annotators[:_MOST_ROWS],
        max(0, len(annotators) - _MOST_ROWS), tuple(f"{c.name}: {c.note}" for c in found if c.note),
        _outcomes(outcomes), tuple(sorted(outcomes.left_out.items())), _without(votes, weight),
        _ranking_chart(ranked) if ranked is not None and len(ranked) > 1 else None,
        ranked.notes if ranked is not None else (),
    )


def _interval(measured: Measurement, percent: bool = False) -> str:
    if measured.note:
        return measured.note
    values = [words.share(v) if percent else words.number(v, 2) for v in (measured.value, measured.low, measured.high)]
    return "{} [{}, {}]".format(*values)


def _annotators(
    votes: Votes, people: Weights, found: Sequence[ProfileCheck], deciders: Shares
) -> tuple[AnnotatorRow, ...]:
    gold, repeats = on_gold(votes), on_repeats(votes)
    place = {str(name): i for i, name in enumerate(people.people)}
    teams = dict(zip(votes.person.astype(str).tolist(), votes.team.astype(str).tolist(), strict=True))
    findings: dict[str, list[str]] = {}
    for check in found:
        for name, named, word in zip(check.people.tolist(), check.named, check.words, strict=True):
            if named:
                findings.setdefault(name, []).append(f"{check.name}: {word}")
    out = []
    for name, count, decides in zip(deciders.names.tolist(), deciders.votes, deciders.decides, strict=True):
        i = place[name]
        own = [*findings.get(name, []), *([people.reasons[i]] if people.reasons[i] else [])]
        out.append(AnnotatorRow(
            name, teams[name], words.number(int(count), 0), words.share(float(decides)), _of(gold, i), _of(repeats, i),
            "set aside" if people.weight[i] == 0 else f"{people.weight[i]:.2g}", "; ".join(own),
        ))
    return tuple(out)


def _of(record: GoldRecord, place: int) -> str:
    count = int(record.answered[place])
    return f"{int(record.right[place])} of {count}" if count else "–"


def _outcomes(outcomes: Outcomes) -> tuple[tuple[str, int], ...]:
    titles = {WINNER: "one candidate chosen", TIED: "a tie, or equal votes for two", ALL_BAD: "all candidates bad"}
    return tuple((word, int((outcomes.kind == kind).sum())) for kind, word in titles.items())


def _without(votes: Votes, weight: Array) -> tuple[tuple[str, str, str], ...]:
    if len(set(votes.team)) < 2:
        return ()
    return tuple(
        (one.name or "without a team", words.number(one.votes, 0),
         f"{words.number(one.changed, 0)} of {words.number(one.of - one.lost, 0)} tasks would have another outcome "
         f"[{words.share(one.low)}, {words.share(one.high)}]" if one.of > one.lost else "no other annotator voted")
        for one in leave_out(votes, weights=weight)
    )


def _ranking_chart(placed: Ranking) -> Markup | None:
    """Strengths with their intervals, one row per model; None if no strength is defined."""
    known = [i for i in range(len(placed)) if math.isfinite(placed.strength[i])]
    if not known:
        return None
    low, high = svg.span([*(float(placed.low[i]) for i in known), *(float(placed.high[i]) for i in known)])
    axis = svg.Axis(low, high, _NAME, svg.WIDTH - 10)
    bottom = svg.TOP + _ROW * len(known)
    parts = [
        svg.element("line", class_="grid", x1=axis(tick), x2=axis(tick), y1=svg.TOP, y2=bottom) for tick in axis.ticks()
    ] + [
        svg.element("text", svg.tick_text(tick), class_="mid", x=axis(tick), y=bottom + 14) for tick in axis.ticks()
    ]
    for row, i in enumerate(known):
        y = svg.TOP + _ROW * (row + 0.5)
        ends = (axis(float(placed.low[i])), axis(float(placed.high[i])))
        parts += [
            svg.element("text", placed.names[i], class_="end", x=_NAME - 12, y=y + 4),
            svg.element("line", class_="interval", x1=ends[0], x2=ends[1], y1=y, y2=y),
            svg.element("circle", class_="dot", cx=axis(float(placed.strength[i])), cy=y, r=4.5),
        ]
    return svg.figure(svg.join(parts), "Strength of each model by votes, in nats", height=bottom + 22)

"""Whose feedback it is: who voted, how far they agree, what was noticed of whom, and which models they prefer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from upturn.annotation.statistics.aggregation import ALL_BAD, TIED, WINNER, Outcomes, by_majority
from upturn.annotation.statistics.agreement import agreement
from upturn.annotation.statistics.annotator_profile import Check
from upturn.annotation.statistics.careless import checks
from upturn.annotation.statistics.gold import Record, Weights, on_gold, on_repeats, weights
from upturn.annotation.statistics.influence import Shares, leave_out, shares
from upturn.annotation.statistics.ranking import Ranking, ranking
from upturn.export.preferences_voted import sources_of, votes_so_far
from upturn.report import svg
from upturn.report import titles as words
from upturn.report.facts import Facts
from upturn.types import Array, Measurement, Votes

_SHOWN = 30  # people in the table, those who decide most first
_ROW, _NAME = 26, 120  # height of a row of the ranking, width of its names


@dataclass(frozen=True)
class Voter:
    """A row of the table of people, in words."""

    name: str
    team: str
    votes: str
    decides: str
    gold: str
    repeats: str
    weight: str
    noted: str


@dataclass(frozen=True)
class Section:
    """What the template shows; everything is words, figures or counts.

    agreed: (mode, alpha, raw agreement, what it rests on);  outcomes: (what, how many)
    without: (team, votes, what would be otherwise);  left_out: (reason, how many)
    """

    lead: str
    warnings: tuple[str, ...]
    agreed: tuple[tuple[str, str, str, str], ...]
    voters: tuple[Voter, ...]
    others: int
    silent: tuple[str, ...]
    outcomes: tuple[tuple[str, int], ...]
    left_out: tuple[tuple[str, int], ...]
    without: tuple[tuple[str, str, str], ...]
    figure: Markup | None
    said: tuple[str, ...]


def of_run(facts: Facts) -> Section | None:
    """None where nobody voted."""
    votes = votes_so_far(facts.run)
    if votes is None:
        return None
    titles = {record.info.get("model"): record.unit for record in facts.run.records() if "model" in record.info}
    owners = {name: titles.get(source, source) for name, source in sources_of(facts.run).items()}
    return section(votes, owners)


def section(votes: Votes, players: Mapping[str, str] | None = None) -> Section:
    """``players``: sample id -> the model that made it; ranked where votes compare several."""
    found = checks(votes)
    people = weights(votes, found=found)
    weight = people.of(votes)
    outcomes, deciders = by_majority(votes, weight), shares(votes, weights=weight)
    placed = ranking(votes, players, weight) if players and len(set(players.values())) > 1 else None
    agreed = tuple(
        (one.mode, _spoken(one.alpha), _spoken(one.raw, percent=True),
         f"{one.people} people, {words.plural(one.tasks, 'task')} that several answered")
        for one in agreement(votes)
    )
    lead = (
        f"{words.plural(int(deciders.votes.sum()), 'vote')} of {len(deciders.names)} "
        f"{'person counts' if len(deciders.names) == 1 else 'people count'}. What trains the model was decided as by "
        f"{deciders.in_effect:.1f} equal people."
    )
    voters = _voters(votes, people, found, deciders)
    return Section(
        lead, deciders.warnings() if len(deciders.names) > 1 else (), agreed, voters[:_SHOWN],
        max(0, len(voters) - _SHOWN), tuple(f"{c.name}: {c.silent}" for c in found if c.silent), _outcomes(outcomes),
        tuple(sorted(outcomes.left_out.items())), _without(votes, weight),
        _ranked(placed) if placed is not None and len(placed) > 1 else None, placed.said if placed is not None else (),
    )


def _spoken(measured: Measurement, percent: bool = False) -> str:
    if measured.note:
        return measured.note
    shown = [words.share(v) if percent else words.number(v, 2) for v in (measured.value, measured.low, measured.high)]
    return "{} [{}, {}]".format(*shown)


def _voters(
    votes: Votes, people: Weights, found: Sequence[Check], deciders: Shares
) -> tuple[Voter, ...]:
    gold, repeats = on_gold(votes), on_repeats(votes)
    place = {str(name): i for i, name in enumerate(people.people)}
    teams = dict(zip(votes.person.astype(str).tolist(), votes.team.astype(str).tolist(), strict=True))
    noticed: dict[str, list[str]] = {}
    for check in found:
        for name, named, word in zip(check.people.tolist(), check.named, check.words, strict=True):
            if named:
                noticed.setdefault(name, []).append(f"{check.name}: {word}")
    out = []
    for name, count, decides in zip(deciders.names.tolist(), deciders.votes, deciders.decides, strict=True):
        i = place[name]
        told = [*noticed.get(name, []), *([people.reasons[i]] if people.reasons[i] else [])]
        out.append(Voter(
            name, teams[name], words.number(int(count), 0), words.share(float(decides)), _of(gold, i), _of(repeats, i),
            "set aside" if people.weight[i] == 0 else f"{people.weight[i]:.2g}", "; ".join(told),
        ))
    return tuple(out)


def _of(record: Record, place: int) -> str:
    asked = int(record.asked[place])
    return f"{int(record.right[place])} of {asked}" if asked else "–"


def _outcomes(outcomes: Outcomes) -> tuple[tuple[str, int], ...]:
    said = {WINNER: "one candidate won", TIED: "a tie, or as many votes for two", ALL_BAD: "all are bad"}
    return tuple((word, int((outcomes.kind == kind).sum())) for kind, word in said.items())


def _without(votes: Votes, weight: Array) -> tuple[tuple[str, str, str], ...]:
    if len(set(votes.team)) < 2:
        return ()
    return tuple(
        (one.name or "without a team", words.number(one.votes, 0),
         f"{words.number(one.changed, 0)} of {words.number(one.of - one.lost, 0)} would be decided otherwise "
         f"[{words.share(one.low)}, {words.share(one.high)}]" if one.of > one.lost else "nobody else voted")
        for one in leave_out(votes, weights=weight)
    )


def _ranked(placed: Ranking) -> Markup | None:
    """Strengths with their intervals, one row a model; None where no number can be given."""
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

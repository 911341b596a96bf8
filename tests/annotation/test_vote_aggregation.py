"""What people together say: winners, ties and "all bad", how sure it is, what is left out, and who decided."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.simulated_voters import Person, joined, simulated_votes, votes_of
from upturn.annotation.statistics.aggregation import RULES, by_majority, by_rewards, columns
from upturn.annotation.statistics.influence import leave_out, shares
from upturn.data.groups import from_fields
from upturn.types import Prompt, Samples, Votes, synthetic_samples


def ranked_votes(
    task: str, *ranks: tuple[int, ...], action: str = "said", names: tuple[str, ...] = ()
) -> list[dict[str, object]]:
    names = names or tuple(f"{task}{letter}" for letter in "abcd"[: len(ranks[0])])
    return [{"person": f"p{i}", "task": task, "shown": names, "ranks": r, "action": action if not any(r) else "said",
             "moment": float(i)} for i, r in enumerate(ranks)]


def picks(task: str, *which: int, k: int = 4) -> list[dict[str, object]]:
    return ranked_votes(task, *(tuple(int(i == w) for i in range(k)) for w in which))


def test_majority_with_its_strength() -> None:
    """Two of three: P(share of the first > share of the next) with uniform priors, by integration."""
    found = by_majority(votes_of([*picks("t", 2, 2, 0)]))
    assert found.winner.tolist() == ["tc"] and found.ranks[0] == (0, 0, 1, 0) and found.votes.tolist() == [3]
    p = (np.arange(20000) + 0.5) / 20000
    above = float((p**2 * (1 - p)).reshape(2, -1).sum(axis=1)[1] / (p**2 * (1 - p)).sum())
    assert found.strength[0] == pytest.approx(2 * above - 1, abs=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_ties_and_all_bad_are_outcomes(rule: str) -> None:
    none = (0, 0, 0, 0)
    rows = [*ranked_votes("bad", none, none, none, action="bad"), *ranked_votes("tie", none, none, none, action="tie"),
            *picks("won", 1, 1, 1)]
    rows += [row for i in range(20) for row in picks(f"more{i:02d}", *[i % 4] * 3)]
    found = RULES[rule](votes_of(rows), None)
    kinds = {tasks[0]: (kind, ranks) for tasks, kind, ranks in zip(found.tasks, found.kind, found.ranks, strict=True)}
    assert kinds["bad"] == ("bad", none) and kinds["tie"] == ("tie", (1, 1, 1, 1)) and kinds["won"][0] == "winner"
    assert ((found.strength >= 0) & (found.strength <= 1)).all()


@pytest.mark.parametrize("rule", RULES)
def test_even_votes_have_no_strength(rule: str) -> None:
    """A tie; the points of the integral over rewards are not quite symmetric, so there it may be a hair's breadth."""
    found = RULES[rule](votes_of(picks("t", 0, 1, k=2)), None)
    assert found.strength[0] == pytest.approx(0, abs=0.05 if rule == "rewards" else 1e-6)
    assert rule == "rewards" or found.kind.tolist() == ["tie"]


def test_rankings_are_counted_by_borda() -> None:
    rows = ranked_votes("t", (1, 2, 3), (1, 3, 2), (2, 1, 3))
    for row in rows:
        row["mode"] = "rank"
    found = by_majority(votes_of(rows))
    np.testing.assert_allclose(found.scores[0], [(1 + 1 + 0.5) / 3, (0.5 + 0 + 1) / 3, (0 + 0.5 + 0) / 3])
    assert found.ranks[0] == (1, 2, 3)


def test_what_does_not_count_is_counted_by_reason() -> None:
    rows = [*picks("t", 0, 0), *picks("t", 1)]
    rows[2] |= {"moment": 9.0}  # the first person again: the first answer counts
    rows += [picks("g", 0)[0] | {"check": "gold", "right": "ga"}, picks("s", 0)[0] | {"action": "skip"},
             picks("u", 0)[0] | {"mode": "studio", "action": "download"}]
    found = by_majority(votes_of(rows))
    assert len(found) == 1 and found.votes.tolist() == [2]
    assert found.left_out == {
        "answered a second time": 1, "gold tasks": 1, "skipped": 1, "implicit votes (studio)": 1,
    }
    aside = by_majority(votes_of(rows), np.array([1.0, 0.0, 1, 1, 1, 1]))
    assert aside.votes.tolist() == [1] and aside.left_out["of annotators who were set aside"] == 1


def test_too_many_candidates_for_a_model_are_counted() -> None:
    names = tuple(f"c{i:02d}" for i in range(13))
    votes = votes_of([*ranked_votes("t", (1, *[0] * 12), names=names), *picks("u", 1, 1)])
    found = by_rewards(votes)
    assert len(found) == 1 and found.left_out == {"of more than 12 candidates in one set": 1}


def test_models_beat_the_majority_where_guessers_are_many() -> None:
    """Three who know among six who guess: the best candidate is found more often, by a sign test at 1% one-sided."""
    people = [Person(f"p{i}", float(i < 3) * 0.95) for i in range(9)]
    votes, taste = simulated_votes(people, 200, 5, 4)
    right = {}
    for name in ("majority", "winners"):
        found = RULES[name](votes, None)
        right[name] = np.array([str(w)[6:] == str(taste[int(tasks[0][1:])].argmax())
                                for w, tasks in zip(found.winner, found.tasks, strict=True)])
    ahead, behind = (right["winners"] & ~right["majority"]).sum(), (right["majority"] & ~right["winners"]).sum()
    assert (ahead - behind) / math.sqrt(ahead + behind) > 2.33


def samples(ids: list[list[str]]) -> Samples:
    made = synthetic_samples("text", [name for row in ids for name in row], [Prompt(f"q{i}") for i in range(len(ids))],
                             np.zeros((len(ids), len(ids[0])), dtype=np.int64), "m")
    made.ids[:] = [name for row in ids for name in row]
    return made


def test_columns_are_read_as_groups() -> None:
    """A pick is its 1 alone, a tie all 1, and what nobody voted on is left out with a note."""
    own = samples([["ta", "tb"], ["ua", "ub"], ["va", "vb"]])
    rows = [*picks("t", 1, 1, k=2), *ranked_votes("u", (0, 0), (0, 0), action="tie")]
    given = columns(by_majority(votes_of(rows)), own)
    assert given["vote"].tolist() == ["winner"] * 2 + ["tie"] * 2 + [""] * 2
    groups, notes = from_fields(own.with_fields(**given))
    assert groups.ranks.tolist() == [[0, 1], [1, 1]]
    assert groups.strength[0] == given["strength"][0] and len(notes) == 2


def team_votes() -> Votes:
    """Two teams of opposite taste on 30 tasks, three of red and two of blue on each."""
    rows = [{"person": f"{team}{i}", "team": team, "task": f"t{t}", "shown": (f"{t}a", f"{t}b"),
             "ranks": (1, 0) if team == "red" else (0, 1)} for t in range(30) for team, n in (("red", 3), ("blue", 2))
            for i in range(n)]
    return votes_of(rows)


def test_shares_and_who_decides() -> None:
    votes = team_votes()
    by_team = shares(votes, "team")
    assert by_team.names.tolist() == ["red", "blue"]
    np.testing.assert_allclose(by_team.decides, [0.6, 0.4])
    assert by_team.in_effect == pytest.approx(1 / (0.36 + 0.16)) and len(by_team.warnings(0.5)) == 1
    assert shares(votes).warnings() == ()
    alone = shares(joined(votes.take(votes.person == "red0"), votes.take(np.flatnonzero(votes.person == "blue0")[:5])))
    assert alone.names[0] == "red0" and "red0: " in alone.warnings()[0]


def test_without_a_team_the_outcome_may_be_another() -> None:
    votes = team_votes()
    players = {f"{t}{c}": c for t in range(30) for c in "ab"}
    red, blue = (next(w for w in leave_out(votes, players=players) if w.name == name) for name in ("red", "blue"))
    assert (red.changed, red.of, red.lost) == (30, 30, 0) and blue.changed == 0
    assert red.ranking is not None and red.ranking.names[0] == "b"
    assert 0.88 < red.low < red.high == 1.0


def rating(person: str, task: int, value: float | None) -> dict[str, object]:
    given = {"action": "bad"} if value is None else {"scores": (value,)}
    return {"person": person, "task": f"t{task}", "mode": "rate", "shown": (f"c{task}",), **given}


def test_whoever_rates_one_at_a_time_decides_too() -> None:
    """Ann alone rates c0, all three c1 and c2: each candidate counts once, so ann decides (1 + 1/3 + 1/3) / 3."""
    rows = [rating("ann", 0, 7.0)]
    numbers = {"ann": 5.0, "bob": None, "cyd": 3.0}
    rows += [rating(person, task, value) for task in (1, 2) for person, value in numbers.items()]
    found = shares(votes_of(rows))
    decides = dict(zip(found.names.tolist(), found.decides.tolist(), strict=True))
    assert decides == pytest.approx({"ann": 5 / 9, "bob": 2 / 9, "cyd": 2 / 9})
    assert dict(zip(found.names.tolist(), found.votes.tolist(), strict=True)) == {"ann": 3, "bob": 2, "cyd": 2}
    outcomes = by_majority(votes_of(rows), None)
    assert outcomes.left_out == {"ratings of one candidate, which compare it with nothing": 7}
    even = shares(votes_of([rating(person, 0, 5.0) for person in ("ann", "bob", "cyd")]))
    assert even.warnings() == ()  # a third each is at the limit

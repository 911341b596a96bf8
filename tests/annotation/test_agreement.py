"""Agreement of people: published examples, the reference package, planted agreement, and intervals that cover it."""

from __future__ import annotations

import math
from typing import Any

import krippendorff
import numpy as np
import pytest

from helpers.published_agreement import PUBLISHED, N, point, unit_values
from helpers.simulated_voters import Person, joined, simulated_votes, votes_of
from upturn.annotation.statistics.agreement import LEAST, Level, _Parts, agreement, alpha, raw
from upturn.types import Array

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: 4 observers, 12 units


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_the_published_example(level: Level, value: float) -> None:
    assert round(point(PUBLISHED, level), 3) == value


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_the_reference_package(level: Level) -> None:
    rng = np.random.default_rng(0)
    for people, units, kinds, absent in ((2, 40, 2, 0.0), (5, 30, 4, 0.3), (9, 200, 7, 0.7)):
        values = np.round(rng.integers(0, kinds, (people, units)) * 1.5 - 2 + rng.integers(0, 2, units) * 1.5, 1)
        values[rng.random(values.shape) < absent] = N
        assert point(values, level) == pytest.approx(krippendorff.alpha(values, level_of_measurement=level), abs=1e-12)


def test_units_of_one_task_are_left_out_together() -> None:
    """Three units a task: leaving a task out is leaving out its three units, by the reference package."""
    rng = np.random.default_rng(1)
    values = rng.integers(1, 5, (4, 30)).astype(float)
    parts = _Parts.of(unit_values(values, np.arange(30) // 3), "ordinal")
    assert parts is not None
    for task, found in enumerate(parts.left_out()):
        rest = values[:, np.arange(30) // 3 != task]
        assert found == pytest.approx(krippendorff.alpha(rest, level_of_measurement="ordinal"), abs=1e-12)


@pytest.mark.parametrize(("knows", "people", "tasks"), [(0.5, 4, LEAST), (0.9, 2, 40)])
def test_intervals_cover_the_truth(knows: float, people: int, tasks: int) -> None:
    """Of four answers each person knows the right one with probability r, else guesses: alpha is r^2 and two people
    agree with probability r^2 + (1 - r^2) / 4.

    250 repetitions: three standard errors of a share of 0.95 are 0.041.
    """
    rng = np.random.default_rng(2)
    within: list[tuple[bool, bool]] = []
    for _ in range(250):
        truth, known = rng.integers(0, 4, tasks), rng.random((people, tasks)) < knows
        data = unit_values(np.where(known, truth, rng.integers(0, 4, (people, tasks))).astype(float))
        a, r = alpha(data, "nominal"), raw(data)
        within.append((a.low <= knows**2 <= a.high, r.low <= knows**2 + (1 - knows**2) / 4 <= r.high))
    shares = np.mean(within, axis=0)
    assert (shares >= 0.95 - 0.041).all() and (shares < 1).all(), shares


def test_it_is_undefined_with_too_little_data() -> None:
    few = alpha(unit_values(PUBLISHED), "nominal")
    assert math.isnan(few.value) and few.note == "11 tasks were answered by two annotators, and 20 are needed"
    assert math.isnan(raw(unit_values(PUBLISHED)).value)
    same = alpha(unit_values(np.ones((3, 40))), "nominal")
    assert math.isnan(same.value) and "chance agreement cannot be estimated" in same.note
    alone = alpha(unit_values(np.ones((1, 40))), "nominal")
    assert math.isnan(alone.value) and "no task was answered by two annotators" in alone.note
    assert alone.note == raw(unit_values(np.ones((1, 40)))).note


def test_agreement_without_exception_still_has_an_interval() -> None:
    """40 tasks, all agreed on: Wilson's lower end of 40 of 40 is 0.912; of two random values 40 in 79 differ."""
    values = np.tile((np.arange(40) % 2).astype(float), (2, 1))
    found = alpha(unit_values(values), "nominal")
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(1 - (1 - 40 / (40 + 1.959964**2)) / (40 / 79), abs=1e-6)


def crowd(mode: str, say: Any, tasks: int = 60, people: int = 4, k: int = 3) -> list[dict[str, Any]]:
    """Each person sees the candidates in an order of their own; ``say(rng, task, candidate)`` is what they think."""
    rng = np.random.default_rng(3)
    rows = []
    for task in range(tasks):
        for person in range(people):
            order = rng.permutation(k)
            rows.append({
                "person": f"p{person}", "task": f"t{task}", "mode": mode, "shown": tuple(f"t{task}c{c}" for c in order),
                **say(rng, task, order),
            })
    return rows


def test_each_mode_has_its_level() -> None:
    """The same opinions in four modes, seen in any order on the screen; by the reference package on the opinions."""
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(60, 3))

    def rate(rng: Any, task: int, order: Array) -> dict[str, Any]:
        return {"scores": tuple(np.round(5 + 2 * truth[task] + rng.normal(size=3))[order].tolist())}

    def rank(rng: Any, task: int, order: Array) -> dict[str, Any]:
        places = (-(truth[task] + 0.5 * rng.normal(size=3))).argsort().argsort() + 1
        return {"ranks": tuple(places[order].tolist())}

    def pick(rng: Any, task: int, order: Array) -> dict[str, Any]:
        best = int((truth[task] + 0.5 * rng.normal(size=3)).argmax())
        return {"ranks": tuple(int(c == best) for c in order)}

    rows = crowd("rate", rate) + crowd("rank", rank) + crowd("pick", pick)
    found = {a.mode: a for a in agreement(votes_of(rows))}
    assert {mode: a.level for mode, a in found.items()} == {"pick": "nominal", "rank": "ordinal", "rate": "interval"}
    assert all((a.people, a.tasks) == (4, 60) for a in found.values())
    for mode in ("rate", "rank", "pick"):
        own = [row for row in rows if row["mode"] == mode]
        table = np.full((4, 60 if mode == "pick" else 180), N)
        for row in own:
            person, task = int(row["person"][1:]), int(row["task"][1:])
            values = row["scores"] if mode == "rate" else row["ranks"]
            for name, value in zip(row["shown"], values, strict=True):
                candidate = int(name.partition("c")[2])
                if mode == "pick":
                    table[person, task] = candidate if value == 1 else table[person, task]
                else:
                    table[person, 3 * task + candidate] = value
        theirs = krippendorff.alpha(table, level_of_measurement=found[mode].level)
        assert found[mode].alpha.value == pytest.approx(theirs, abs=1e-12), mode
        assert 0.3 < found[mode].alpha.low < found[mode].alpha.value < found[mode].alpha.high < 1
    same = [np.mean([a == b for i, a in enumerate(own) for b in own[:i]]) for own in table.T]  # of picks, task by task
    assert found["pick"].raw.value == pytest.approx(np.mean(same), abs=1e-12)


def test_compare_has_grades_on_either_side_of_a_tie() -> None:
    """Strengths -2 to 2 by ordinal alpha; "all bad" is no grade, and still an answer that two may share."""
    rng = np.random.default_rng(5)
    grades = np.clip(rng.integers(-2, 3, 60) + rng.integers(-1, 2, (3, 60)), -2, 2)
    rows = []
    for task in range(60):
        for person in range(3):
            order, grade = rng.permutation(2), int(grades[person, task])
            ranks = tuple(0 if grade == 0 else 1 if (c == 0) == (grade > 0) else 2 for c in order)
            rows.append({
                "person": f"p{person}", "task": f"t{task}", "mode": "compare", "ranks": ranks,
                "shown": tuple(f"t{task}c{c}" for c in order), "action": "said" if grade else "tie",
                "strength": float(abs(grade)) if grade else N,
            })
    (found,) = agreement(votes_of(rows))
    assert found.alpha.value == pytest.approx(krippendorff.alpha(grades, level_of_measurement="ordinal"), abs=1e-12)
    bad = [dict(row, action="bad", ranks=(0, 0), strength=N) if row["task"] == "t0" else row for row in rows]
    (other,) = agreement(votes_of(bad))
    assert other.tasks == 60
    assert other.alpha.value == pytest.approx(krippendorff.alpha(grades[:, 1:], level_of_measurement="ordinal"))
    assert other.raw.values is not None and found.raw.values is not None and other.raw.values[0] == 1.0


def test_an_order_is_agreed_on_pair_by_pair() -> None:
    """Two people, three candidates, orders 1 2 3 and 1 3 2: of three pairs they agree on two; the alpha is counted."""
    rows = []
    for task in range(30):
        for person, ranks in (("a", (1, 2, 3)), ("b", (1, 3, 2))):
            rows.append({"person": person, "task": f"t{task}", "mode": "rank", "ranks": ranks,
                         "shown": tuple(f"t{task}{c}" for c in "xyz")})
    (found,) = agreement(votes_of(rows))
    assert found.raw.value == pytest.approx(2 / 3)


def test_what_does_not_count_is_no_agreement() -> None:
    """Gold, repeats, skips, downloads and corrections change nothing."""
    votes, _ = simulated_votes([Person("a"), Person("b"), Person("c")], 40, 2, 6)
    (plain,) = agreement(votes)
    rows = [{"person": "a", "task": f"t{i:04d}", "shown": ("x", "y"), "ranks": (1, 0), **other}
            for i, other in enumerate([{"check": "gold"}, {"check": "repeat"}, {"action": "skip"}, {"mode": "studio"},
                                       {"mode": "edit", "action": "edit"}] * 8)]
    (other,) = agreement(joined(votes, votes_of(rows)))
    assert (other.alpha.value, other.raw.value, other.tasks) == (plain.alpha.value, plain.raw.value, plain.tasks)


def test_ratings_of_one_candidate_alone_are_agreed_on() -> None:
    """As the page asks for them: one candidate a task, numbers up to 1 apart are the same, "useless" is a 1.

    Of 40 tasks 20 have 7 and 7.5, 10 have 3 and 5, 10 have useless and 2; alpha by the reference package.
    """
    rows, table = [], np.full((2, 40), N)
    for task in range(40):
        pair = (7.0, 7.5) if task < 20 else (3.0, 5.0) if task < 30 else (None, 2.0)
        for person, value in enumerate(pair):
            given = {"action": "bad"} if value is None else {"scores": (value,)}
            rows.append({"person": f"p{person}", "task": f"t{task}", "mode": "rate", "shown": (f"c{task}",), **given})
            table[person, task] = 1.0 if value is None else value
    (found,) = agreement(votes_of(rows))
    assert (found.tasks, found.people) == (40, 2)
    assert found.raw.value == pytest.approx(30 / 40) and 0.55 < found.raw.low < 0.75 < found.raw.high < 0.9
    assert found.alpha.value == pytest.approx(krippendorff.alpha(table, level_of_measurement="interval"), abs=1e-12)


def test_values_within_a_distance_are_the_same() -> None:
    """Against every pair of every unit, by two loops."""
    rng = np.random.default_rng(8)
    values = np.round(rng.uniform(1, 10, (4, 50)), 1)
    values_of = unit_values(values)
    pairs = [[abs(a - b) <= 1 + 1e-9 for i, a in enumerate(unit) for b in unit[:i]] for unit in values.T]
    assert raw(values_of, within=1.0).value == pytest.approx(np.mean([np.mean(own) for own in pairs]), abs=1e-12)

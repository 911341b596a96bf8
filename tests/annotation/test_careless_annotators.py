"""Habits of people: planted ones are found by name, honest people are not; gold tasks, repeats and weights."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.simulated_voters import Person, joined, simulated_votes, votes_of
from upturn.annotation.statistics.careless import checks
from upturn.annotation.statistics.gold import Standard, on_gold, on_repeats, weights
from upturn.statistics.intervals import wilson
from upturn.types import Votes

HONEST = [Person(f"honest{i}", temperature=1.0) for i in range(8)]


def named(votes: Votes) -> dict[str, set[str]]:
    return {check.name: set(check.people[check.named].tolist()) for check in checks(votes)}


def test_planted_habits_are_found_by_name() -> None:
    """A guesser, one who often takes the first, and one who does not read, among eight who pick by softmax."""
    people = [*HONEST, Person("guesser", 0.0), Person("first", first=0.4, temperature=1.0),
              Person("hasty", temperature=1.0, seconds=1.0)]
    found = named(simulated_votes(people, 300, 4, 0, spread=2.0)[0])
    assert found["guessing"] == {"guesser"} and found["position"] == {"first"} and found["speed"] == {"hasty"}
    assert not found["drift"]


def test_one_who_tires_is_found() -> None:
    rng_votes = [simulated_votes([*HONEST, Person("tired", knows)], 200, 5, 3 + i, spread=2.0)[0]
                 for i, knows in enumerate((1.0, 0.0))]
    late = rng_votes[1]
    late.moment[:] += 1e6
    late.task[:] = np.array([f"later-{task}" for task in late.task], dtype=object)
    assert named(joined(*rng_votes))["drift"] == {"tired"}


@pytest.mark.slow
def test_careful_annotators_are_not_flagged() -> None:
    """At most 5% of crowds may have anybody named: of 15, three or fewer in 99.5% of repetitions (binomial)."""
    alarms = sum(any(named(simulated_votes(HONEST, 80, 3, 100 + seed)[0]).values()) for seed in range(15))
    assert alarms <= 3


def test_one_order_for_all_says_nothing_of_places() -> None:
    rows = [{"person": p, "task": f"t{t}", "shown": (f"{t}a", f"{t}b"), "ranks": (1, 0)}
            for t in range(30) for p in ("x", "y")]
    position = next(check for check in checks(votes_of(rows)) if check.name == "position")
    assert not position.named.any() and "all annotators saw one order" in position.note


def gold(person: str, right: int, wrong: int) -> list[dict[str, object]]:
    """Gold tasks of four, the first candidate right."""
    return [{"person": person, "task": f"g{i}", "shown": (f"{i}a", f"{i}b", f"{i}c", f"{i}d"), "check": "gold",
             "ranks": (1, 0, 0, 0) if i < right else (0, 1, 0, 0), "right": f"{i}a"} for i in range(right + wrong)]


def test_gold_tasks_are_a_share_with_wilsons_interval() -> None:
    record = on_gold(votes_of([*gold("ann", 18, 2), *gold("bob", 2, 2)]))
    assert record.people.tolist() == ["ann", "bob"] and record.right.tolist() == [18, 2]
    assert record.share[0] == 0.9 and np.isnan(record.share[1])  # four answers say too little
    assert (record.low[0], record.high[0]) == wilson(0.9, 20)
    assert record.chance.tolist() == [0.25, 0.25]


def test_a_tie_on_a_gold_task_is_wrong_and_a_skip_is_not_counted() -> None:
    rows = gold("ann", 6, 0)
    rows[0] |= {"action": "tie", "ranks": (0, 0, 0, 0)}
    rows[1] |= {"action": "skip", "ranks": (0, 0, 0, 0)}
    record = on_gold(votes_of(rows))
    assert (record.right[0], record.answered[0], record.skipped) == (4, 5, 1)


def test_repeats_are_compared_with_the_first_answer_by_candidate() -> None:
    rows = []
    for i in range(6):
        names = (f"{i}a", f"{i}b", f"{i}c")
        rows.append({"task": f"t{i}", "shown": names, "ranks": (1, 0, 0), "moment": float(i)})
        other = (0, 0, 1) if i < 4 else (1, 0, 0)  # shown in the other order: the third is "a"
        rows.append({"task": f"t{i}", "shown": names[::-1], "ranks": other, "moment": 100.0 + i, "check": "repeat"})
    record = on_repeats(votes_of(rows))
    assert (record.right[0], record.answered[0]) == (4, 6)


def test_weights_say_why_and_delete_nothing() -> None:
    """Interval below the standard: 0; share below it: linear above chance; unknown annotators: 1."""
    votes = votes_of([*gold("good", 19, 1), *gold("poor", 9, 11), *gold("guesser", 5, 15), *gold("new", 0, 3)])
    found = weights(votes)
    by = dict(zip(found.people.tolist(), found.weight.tolist(), strict=True))
    assert by["good"] == by["new"] == 1 and by["guesser"] == 0
    assert by["poor"] == pytest.approx((0.45 - 0.25) / (0.6 - 0.25))
    said = dict(zip(found.people.tolist(), found.reasons, strict=True))
    assert said["good"] == "" and said["guesser"].startswith("set aside: 5 of 20 gold tasks right")
    assert len(found.of(votes)) == len(votes) and found.of(votes_of([{"person": "stranger", "shown": ("a", "b")}])) == 1


def test_a_check_sets_aside_only_where_configured() -> None:
    votes = simulated_votes([*HONEST, Person("guesser", 0.0)], 200, 4, 0, spread=2.0)[0]
    found = checks(votes)
    assert (weights(votes, found=found).weight == 1).all()
    strict = weights(votes, Standard(set_aside=("guessing",)), found)
    assert strict.people[strict.weight == 0].tolist() == ["guesser"]
    assert any("agrees with the others" in reason for reason in strict.reasons)
    with pytest.raises(ValueError, match="gold"):
        Standard(gold=0.0)

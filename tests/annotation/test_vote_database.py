"""The ballot box: who sees what, what a vote leaves behind, and that two at once never get in each other's way."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DatabaseError

from helpers import postgres as databases
from upturn.annotation.db import tables as t
from upturn.annotation.db.assign import _NEXT
from upturn.annotation.db.ballots import BallotBox
from upturn.annotation.db.tokens import hashed, key_in
from upturn.annotation.db.validation import OVERALL, Answer, Assignment, Refused, Task
from upturn.errors import UserError

KEY = b"k" * 32
Open = Callable[..., BallotBox]


class Clock:
    """Time that tests move."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    if databases.why_not():
        pytest.skip(databases.why_not())
    with databases.postgres() as url:
        yield url


_schemas = count()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.database)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens one and the same database, as often as asked."""
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'votes.db'}" if sqlite else request.getfixturevalue("postgres_url")
    schema, there = f"upturn_test_{next(_schemas)}", []

    def open_one(**settings: object) -> BallotBox:
        there.append(BallotBox(url, schema, KEY, **settings))  # type: ignore[arg-type]
        return there[-1]

    yield open_one
    for box in there:
        box.close()


def tasks(number: int, candidates: int = 4, name: str = "t") -> list[Task]:
    ids = [tuple(f"{name}{i}-{k}" for k in range(candidates)) for i in range(number)]
    places = ("rounds/001/samples.parquet",) * candidates
    return [Task({"text": f"prompt {i}"}, own, places) for i, own in enumerate(ids)]


def assigned(box: BallotBox, person: str, **more: object) -> Assignment:
    showing = box.assign(person, **more).showing  # type: ignore[arg-type]
    assert showing is not None
    return showing


def pick(showing: Assignment, position: int = 0, name: str = "", **more: object) -> Answer:
    ranks = tuple(int(place == position) for place in range(len(showing.shown)))
    return Answer(name or uuid.uuid4().hex, showing.person, showing.id, "said", ranks, **more)  # type: ignore[arg-type]


def counters_agree(box: BallotBox) -> None:
    """The counters are the sums that they stand for."""
    with box._reads.connect() as db:
        for task in db.execute(select(t.tasks)).all():
            shown = select(t.showings.c.state).where(t.showings.c.task == task.id, t.showings.c.check != "repeat")
            states = Counter(db.execute(shown).scalars())
            undone = select(t.votes.c.undoes).where(t.votes.c.undoes.is_not(None))
            stand = db.execute(select(t.votes).where(
                t.votes.c.task == task.id, t.votes.c.check != "repeat", t.votes.c.action.not_in(["undo", "skip"]),
                t.votes.c.id.not_in(undone),
            )).all()
            assert task.covered == len(stand) == states["answered"], (task, states)
            assert task.load == states["open"] + states["answered"], (task, states)
        for poll in db.execute(select(t.polls)).all():
            own = db.execute(select(t.tasks).where(t.tasks.c.poll == poll.id, t.tasks.c.gold == "")).all()
            assert poll.given == sum(row.covered for row in own) and poll.load == sum(row.load for row in own)


@pytest.mark.slow
def test_each_gets_the_least_covered_task_they_have_not_seen(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(6), overlap=2)
    people = [box.add_person(name)[0].id for name in ("ada", "bob", "cyd")]
    seen: dict[str, list[str]] = {person: [] for person in people}
    cover: Counter[str] = Counter()
    for turn in range(12):
        person = people[turn % 3]
        showing = assigned(box, person)
        assert showing.task not in seen[person]
        assert cover[showing.task] == min(cover[name] for name in every(box)), "not the least covered"
        box.record(pick(showing))
        seen[person].append(showing.task)
        cover[showing.task] += 1
    assert set(cover.values()) == {2}
    assert [box.assign(person).why for person in people] == ["done"] * 3
    assert box.progress().met and box.progress().message() == "all 12 answers are there"
    counters_agree(box)


def every(box: BallotBox) -> list[str]:
    return list(box.read(lambda db: db.execute(select(t.tasks.c.id)).scalars().all()))


@pytest.mark.slow
def test_two_at_once_never_get_the_last_slot_twice(opened: Open) -> None:
    """Forty people, two servers, one slot left of each of five tasks: five are shown it, each once."""
    boxes = [opened(), opened()]
    boxes[0].open_poll("rounds/001", "pick", tasks(5), overlap=1)
    people = [boxes[0].add_person(f"p{i}")[0].id for i in range(40)]
    start, got = threading.Barrier(40), []

    def voter(i: int) -> None:
        start.wait()
        got.append(boxes[i % 2].assign(people[i]))

    threads = [threading.Thread(target=voter, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = [one.showing.task for one in got if one.showing is not None]
    assert len(shown) == len(set(shown)) == 5
    assert [one.why for one in got].count("later") == 35
    counters_agree(boxes[0])


def test_a_task_that_nobody_answers_comes_back_and_a_late_answer_counts(opened: Open) -> None:
    clock = Clock()
    box = opened(clock=clock, patience=60)
    box.open_poll("rounds/001", "pick", tasks(1), overlap=1)
    ada, bob = (box.add_person(name)[0].id for name in ("ada", "bob"))
    late = assigned(box, ada)
    assert box.assign(bob).why == "later"
    clock.now += 61
    fresh = assigned(box, bob)
    assert fresh.task == late.task
    box.record(pick(late))
    box.record(pick(fresh))
    assert len(box.votes()) == 2 and box.progress().met
    counters_agree(box)


def test_a_reload_shows_the_same_and_open_tasks_are_limited(opened: Open) -> None:
    box = opened(most_open=2)
    box.open_poll("rounds/001", "pick", tasks(5), overlap=1)
    ada = box.add_person("ada")[0].id
    first = assigned(box, ada)
    assert assigned(box, ada) == first
    second = assigned(box, ada, beside=[first.id])
    assert second.task != first.task
    assert box.assign(ada, beside=[first.id, second.id]).why == "held"


def test_a_vote_is_written_once_whatever_is_sent_twice(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(3), overlap=1)
    ada, bob = (box.add_person(name)[0].id for name in ("ada", "bob"))
    showing = assigned(box, ada)
    answer = pick(showing, 2, "the-same-id", seconds=1e9, client="test")
    assert not box.record(answer).again and box.record(answer).again
    with pytest.raises(Refused, match="answered already"):
        box.record(pick(showing, 1))
    other = assigned(box, bob)
    with pytest.raises(Refused, match="another vote"):
        box.record(pick(other, 1, "the-same-id"))
    with pytest.raises(Refused, match="no such showing"):
        box.record(pick(Assignment(**{**vars(other), "person": ada})))
    votes = box.votes()
    assert votes.ids.tolist() == ["the-same-id"] and votes.person.tolist() == [ada]
    assert votes.shown[0] == showing.shown and votes.ranks[0] == (0, 0, 1, 0) and np.isnan(votes.scores[0]).all()
    assert 0 <= votes.seconds[0] < 60, "more time than passed was taken from the client"
    counters_agree(box)


def test_undo_is_another_row_and_shows_the_task_again(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(3), overlap=1)
    ada = box.add_person("ada")[0].id
    first = assigned(box, ada)
    box.record(pick(first, 0, "first"))
    second = assigned(box, ada)
    box.record(Answer("skipped", ada, second.id, "skip"))
    third = assigned(box, ada)
    undone, showing = box.undo("u1", ada)
    assert undone is not None and showing is not None and showing.task == second.task and showing.shown == second.shown
    assert assigned(box, ada).id == showing.id, "what was undone comes first"
    assert box.undo("u1", ada) == (undone.__class__("u1", second.task, "undo", True), None)
    _, earlier = box.undo("u2", ada)
    assert earlier is not None and earlier.task == first.task
    assert box.undo("u3", ada) == (None, None)
    assert len(box.votes()) == 0 and box.people()[0].given == 0
    box.record(pick(earlier, 3))
    assert box.votes().ranks.tolist() == [(0, 0, 0, 1)]
    rows = box.read(lambda db: db.execute(select(t.votes.c.id, t.votes.c.undoes)).all())
    assert [tuple(row) for row in rows[:4]] == [
        ("first", None), ("skipped", None), ("u1", "skipped"), ("u2", "first"),
    ]
    assert third.task not in (first.task, second.task)
    counters_agree(box)


@pytest.mark.parametrize("statement", ["UPDATE votes SET action = 'tie'", "DELETE FROM votes"])
def test_the_database_refuses_to_change_a_vote(opened: Open, statement: str) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(1), overlap=1)
    box.record(pick(assigned(box, box.add_person("ada")[0].id)))
    with pytest.raises(DatabaseError, match="never changed"), box._writes.begin() as db:
        db.execute(text(statement))
    assert len(box.votes()) == 1


def test_one_bad_job_costs_the_others_nothing(opened: Open) -> None:
    box = opened()
    hold = threading.Event()
    box.submit(lambda db: hold.wait(10))  # so that the next ones wait together

    def added(i: int) -> Callable[[Connection], int]:
        row = {"role": "voter", "team": "", "paused": False, "epoch": 0, "given": 0, "made": 0.0}
        insert = t.people.insert().values(id=f"p{i}", name=f"n{i}", token=f"t{i}", **row)
        return lambda db: [db.execute(insert), i][1]  # type: ignore[return-value]

    good = [box.submit(added(i)) for i in range(5)]
    bad = box.submit(lambda db: db.execute(text("SELECT nothing FROM nowhere")))
    hold.set()
    assert [one.result(30) for one in good] == [0, 1, 2, 3, 4]
    with pytest.raises(DatabaseError):
        bad.result(30)
    assert len(box.people()) == 5


def test_skips_and_quotas(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(4), overlap=1, quota=3)
    ada, _ = box.add_person("ada", quota=2)
    bob, _ = box.add_person("bob")
    skipped = assigned(box, ada.id)
    box.record(Answer(uuid.uuid4().hex, ada.id, skipped.id, "skip"))
    for _ in range(2):
        showing = assigned(box, ada.id)
        assert showing.task != skipped.task
        box.record(pick(showing))
    assert box.assign(ada.id).why == "quota"
    progress = box.progress()
    assert (progress.wanted, progress.given, progress.missing) == (3, 2, 1) and not progress.met
    assert "1 of 3 in 'pick' on rounds/001" in progress.message()
    box.record(pick(assigned(box, bob.id)))
    assert box.assign(bob.id).why == "done" and box.progress().met
    counters_agree(box)


def test_answers_that_no_annotator_can_give_are_stuck(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(2), overlap=3)
    ada, bob = (box.add_person(name)[0].id for name in ("ada", "bob"))
    for person in (ada, bob):
        for _ in range(2):
            box.record(pick(assigned(box, person)))
    assert box.progress().missing == box.progress().polls[0].stuck == 2
    assert "2 of them need more annotators" in box.progress().message()
    box.add_person("cyd")
    assert box.progress().polls[0].stuck == 0


@pytest.mark.slow
def test_gold_and_repeats(opened: Open) -> None:
    box = opened()
    gold = [Task(task.prompt, task.candidates, task.places, task.candidates[0]) for task in tasks(30, name="g")]
    box.open_poll("rounds/001", "pick", [*tasks(120), *gold], overlap=1, golds=0.15, repeats=0.1)
    ada = box.add_person("ada")[0].id
    while (showing := box.assign(ada).showing) is not None:
        box.record(pick(showing, sorted(showing.shown).index(min(showing.shown)) and 0))
    votes = box.votes()
    checks = Counter(votes.check)
    assert checks[""] == 120, "checks took the place of what was asked"
    assert 5 < checks["gold"] <= 30 and 5 < checks["repeat"] < 30
    for row in range(len(votes)):
        assert (votes.right[row] != "") == (votes.check[row] == "gold")
    twice = [task for task, number in Counter(votes.task).items() if number == 2]
    assert len(twice) == checks["repeat"]
    orders = [{votes.shown[row] for row in np.flatnonzero(votes.task == task)} for task in twice]
    assert sum(len(order) == 2 for order in orders) > len(orders) / 2, "a repeat has an order of its own"
    assert box.progress().given == 120
    counters_agree(box)


@pytest.mark.slow
def test_orders_differ_between_annotators(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(1), overlap=24)
    orders = Counter(assigned(box, box.add_person(f"p{i}")[0].id).shown for i in range(24))
    assert len(orders) > 8  # of 24; 15.6 are expected of 24 draws from 24 orders
    first = Counter(order[0] for order in orders.elements())
    assert max(first.values()) < 15  # binomial(24, 1/4): P(15 or more) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "count", "answer", "wrong"),
    [
        ("pick", 4, {"action": "said", "ranks": (0, 1, 0, 0)}, None),
        ("pick", 4, {"action": "tie"}, None),
        ("pick", 4, {"action": "bad"}, None),
        ("pick", 4, {"action": "said", "ranks": (1, 1, 0, 0)}, "ranks"),
        ("pick", 4, {"action": "said"}, "ranks"),
        ("pick", 4, {"action": "said", "ranks": (1, 0, 0)}, "ranks"),
        ("pick", 4, {"action": "edit", "text": "x"}, "without a text"),
        ("pick", 4, {"action": "tie", "ranks": (1, 0, 0, 0)}, "nothing of single"),
        ("compare", 2, {"action": "said", "ranks": (1, 2), "strength": 1.0}, None),
        ("compare", 2, {"action": "said", "ranks": (1, 1), "strength": 0.0}, None),
        ("compare", 2, {"action": "said", "ranks": (1, 2)}, "need a strength"),
        ("compare", 2, {"action": "said", "ranks": (1, 1), "strength": 0.5}, "need a strength"),
        ("compare", 2, {"action": "said", "ranks": (1, 2), "strength": 2.0}, "between 0 and 1"),
        ("rate", 1, {"action": "said", "scores": {OVERALL: (10.0,)}}, None),
        ("rate", 1, {"action": "said", "scores": {OVERALL: (11.0,)}}, "between 1 and 10"),
        ("rate", 1, {"action": "said", "scores": {"style": (5.0,)}}, "each of overall"),
        ("rate", 1, {"action": "said", "scores": {OVERALL: (float("nan"),)}}, "between 1 and 10"),
        ("rank", 3, {"action": "said", "ranks": (2, 1, 3)}, None),
        ("rank", 3, {"action": "said", "ranks": (2, 0, 3)}, "ranks"),
        ("edit", 1, {"action": "edit", "text": "better"}, None),
        ("edit", 1, {"action": "said", "ranks": (1,)}, None),
        ("edit", 1, {"action": "edit", "text": "  "}, "1 to"),
    ],
)
def test_an_answer_must_fit_its_task(
    tmp_path: Path, mode: str, count: int, answer: dict[str, object], wrong: str | None
) -> None:
    with BallotBox(f"sqlite:///{tmp_path / 'v.db'}", "upturn_x", KEY) as box:
        box.open_poll("rounds/001", mode, tasks(1, count), overlap=1)
        showing = assigned(box, box.add_person("ada")[0].id)
        said = Answer("an-answer", showing.person, showing.id, **answer)  # type: ignore[arg-type]
        if wrong is None:
            box.record(said)
            assert box.votes().action.tolist() == [answer["action"]] and box.votes().mode.tolist() == [mode]
            return
        with pytest.raises(Refused, match=wrong):
            box.record(said)
        assert len(box.votes()) == 0


def test_attributes_are_rows_of_their_own(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "rate", tasks(1, 1), overlap=1, attributes=["clear", "true"])
    showing = assigned(box, box.add_person("ada")[0].id)
    assert showing.attributes == ("clear", "true")
    box.record(Answer("v", showing.person, showing.id, "said", scores={"true": (2.0,), "clear": (9.0,)}))
    votes = box.votes()
    assert votes.ids.tolist() == ["v:clear", "v:true"] and votes.scores.tolist() == [(9.0,), (2.0,)]
    assert votes.task.tolist() == [f"{showing.task}:clear", f"{showing.task}:true"]


def test_annotators_and_tokens(opened: Open) -> None:
    box = opened()
    ada, token = box.add_person("ada", "admin", "a team")
    assert box.by_token(token) == ada and box.by_token(token[:-1]) is None and box.by_token("") is None
    rows = box.read(lambda db: db.execute(select(t.people)).mappings().all())
    assert token not in str(rows) and rows[0]["token"] == hashed(KEY, token) != hashed(b"x" * 32, token)
    newer = box.new_token(ada.id)
    renewed = box.by_token(newer)
    assert box.by_token(token) is None and renewed is not None and renewed.epoch == ada.epoch + 1
    assert box.add_people([{"name": "ada"}, {"name": "bob", "team": "b"}])[0][0].name == "bob"
    for name in ("ada", "", " ", "x" * 81, "a\nb"):
        with pytest.raises(Refused):
            box.add_person(name)
    box.open_poll("rounds/001", "pick", tasks(2), overlap=1)
    showing = assigned(box, ada.id)
    box.change_person(ada.id, paused=True)
    for act in (lambda: box.assign(ada.id), lambda: box.record(pick(showing))):
        with pytest.raises(Refused, match="paused"):
            act()


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    assert key == key_in(tmp_path) and len(key) == 32
    path = tmp_path / "votes.key"
    assert path.stat().st_mode & 0o777 == 0o600 and [p.name for p in tmp_path.iterdir()] == ["votes.key"]
    path.chmod(0o644)
    with pytest.raises(UserError, match="others may read"):
        key_in(tmp_path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(UserError, match="no key of votes"):
        key_in(tmp_path)


def test_polls_opened_again_keep_their_answers(opened: Open) -> None:
    box = opened()
    box.open_poll("rounds/001", "pick", tasks(2), overlap=1)
    ada = box.add_person("ada")[0].id
    box.record(pick(assigned(box, ada)))
    poll = box.open_poll("rounds/001", "pick", tasks(3), overlap=2)
    assert (poll.overlap, poll.given) == (2, 1) and box.progress().polls[0].tasks == 3
    box.change_poll(poll.id, active=False)
    assert box.assign(ada).why == "done" and box.polls(active=True) == [] and box.progress(["rounds/001"]).wanted == 6
    for bad in ({"overlap": 0}, {"quota": -1}, {"golds": 0.6, "repeats": 0.5}):
        with pytest.raises(Refused):
            box.open_poll("rounds/001", "pick", tasks(1), **({"overlap": 1} | bad))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="2 candidates"):
        box.open_poll("rounds/001", "compare", tasks(1), overlap=1)


@pytest.mark.slow
@pytest.mark.database
def test_the_next_task_of_a_fresh_poll_is_found_without_reading_all(postgres_url: str) -> None:
    """Of 2,000 tasks, before Postgres itself has looked at the table: no step of the plan gives more than a few."""
    with BallotBox(postgres_url, f"upturn_test_{next(_schemas)}", KEY) as box, box._reads.connect() as db:
        poll = box.open_poll("rounds/001", "pick", tasks(2000), overlap=2)
        values = {"person": box.add_person("ada")[0].id, "poll": poll.id, "overlap": 2}
        query = _NEXT.params(values).compile(box._reads, compile_kwargs={"literal_binds": True})
        plan = db.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}").scalar_one()
    given = [node["Actual Rows"] for node in nodes(plan[0]["Plan"])]
    assert given and max(given) < 100


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)

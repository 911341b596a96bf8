"""Simulated people over HTTP: they pick as the scorer of the same name does, and each kind is what it says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.voting_server_cases import sampled_run, text_samples, voting_state
from upturn.annotation.simulated_annotator import LEFT, RANDOM, SimulatedAnnotator
from upturn.annotation.tasks import Question
from upturn.scorers.simulated_people import SimulatedPeople
from upturn.store import parquet_tables
from upturn.types import Array, Samples, Votes
from upturn.web.server_state import ServerState
from upturn.web.simulated_annotators import Simulated, crowd, felt, simulate

pytestmark = pytest.mark.slow


def taste(samples: Samples) -> dict[str, float]:
    return {str(name): float(len(text) % 7) / 3 for name, text in zip(samples.ids, samples.content, strict=True)}


def cast(state: ServerState, voters: list[SimulatedAnnotator], rewards: dict[str, float], seed: int = 0) -> Simulated:
    with crowd(state, voters) as (address, tokens):
        return simulate(address, tokens, rewards.__getitem__, voters, seed)


def picks(votes: Votes) -> dict[tuple[str, str], str]:
    return {
        (votes.person[row], votes.task[row]): next(
            name for name, rank in zip(votes.shown[row], votes.ranks[row], strict=True) if rank == 1)
        for row in range(len(votes))
    }


def test_they_pick_as_the_scorer_of_simulated_annotators_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same crowd twice: over HTTP, orders shuffled, and as the scorer that the loop uses; every pick is equal."""
    samples = text_samples(40)
    run = sampled_run(tmp_path / "run", samples)
    rewards = taste(samples)
    voters = [SimulatedAnnotator(temperature=1.0, careless=0.2)] * 3
    with voting_state(run, Question("pick", overlap=3)) as state:
        done = cast(state, voters, rewards, seed=5)
        votes = state.box.votes()
        people = [person.id for person in state.box.people()]
    assert done.given == [40, 40, 40] and done.ended == ["done"] * 3 and set(votes.team) == {"simulated"}
    stored = parquet_tables.read_samples(run.unit("rounds/001") / "samples.parquet")
    crowd_of = SimulatedPeople("length", people=3, noise=1.0, careless=0.2, seed=5)

    class Taste:
        def score(self, rows: Samples, tools: object) -> object:
            from upturn.types import Scores

            return Scores("taste", np.array([rewards[str(name)] for name in rows.ids]))

    monkeypatch.setattr(crowd_of, "_scorer", Taste())
    groups = crowd_of.votes(stored, None)  # type: ignore[arg-type]
    expected = {}
    for row in range(len(groups)):
        ids = stored.ids[groups.rows[row]]
        expected[row % 3, tuple(sorted(ids))] = str(ids[groups.ranks[row].argmax()])
    for row in range(len(votes)):
        person = people.index(votes.person[row])
        chosen = picks(votes.take(np.array([row])))[votes.person[row], votes.task[row]]
        assert chosen == expected[person, tuple(sorted(votes.shown[row]))]


def test_the_softmax_at_a_temperature() -> None:
    """10,000 draws of one person's noise against the softmax: each share within 4 standard errors.

    Noise comes from a candidate's id alone, whatever stands beside it: all candidates are asked about at once.
    """
    rewards, n = np.array([0.0, 0.5, 1.0, 2.0]), 10_000
    ids = [f"{i}-{k}" for i in range(n) for k in range(4)]
    for temperature in (0.5, 1.0, 2.0):
        annotator = SimulatedAnnotator(temperature)
        utility = felt(annotator, np.tile(rewards, n), ids, 0, 1, 0).reshape(n, 4)
        assert np.array_equal(felt(annotator, rewards, ids[:4], 0, 1, 0), utility[0])
        shares = np.bincount(utility.argmax(axis=1), minlength=4) / n
        expected = np.exp(rewards / temperature) / np.exp(rewards / temperature).sum()
        assert np.all(np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / n))


@pytest.mark.long
def test_careless_and_biased_annotators(tmp_path: Path) -> None:
    """300 tasks each: shares within 4 standard errors of what each kind says."""
    samples = text_samples(300)
    run = sampled_run(tmp_path / "run", samples)
    rewards = taste(samples)
    voters = [SimulatedAnnotator(temperature=0.0), SimulatedAnnotator(temperature=0.0, careless=0.3), RANDOM, LEFT]
    with voting_state(run, Question("pick", overlap=4)) as state:
        assert cast(state, voters, rewards).votes == 1200
        votes = state.box.votes()
        people = [person.id for person in state.box.people()]

    def share(person: int, what: Array) -> float:
        return float(what[votes.person == people[person]].mean())

    values = [[rewards[name] for name in shown] for shown in votes.shown]
    best = np.array([value[rank.index(1)] == max(value) for value, rank in zip(values, votes.ranks, strict=True)])
    tops = np.array([sum(one == max(value) for one in value) / 4 for value in values])
    first = np.array([rank[0] == 1 for rank in votes.ranks])
    assert share(0, best) == 1.0
    chance = share(2, tops)
    for person, careless in ((1, 0.3), (2, 1.0)):
        expected = 1 - careless + careless * chance
        assert abs(share(person, best) - expected) < 4 * math.sqrt(0.25 / 300)
    assert abs(share(2, first) - 0.25) < 4 * math.sqrt(0.1875 / 300)
    expected = 0.7 + 0.3 * 0.25
    assert abs(share(3, first) - expected) < 4 * math.sqrt(expected * (1 - expected) / 300)


def test_every_mode_is_answered(tmp_path: Path) -> None:
    samples = text_samples(6)
    run = sampled_run(tmp_path / "run", samples)
    questions = (Question("pick"), Question("compare"), Question("rank"), Question("edit"),
                 Question("rate", attributes=("a", "b")))
    with voting_state(run, *questions) as state:
        done = cast(state, [SimulatedAnnotator(temperature=0.0)] * 2, taste(samples))
        votes = state.box.votes()
        assert state.box.progress().met and done.votes == 6 + 6 + 6 + 24 + 24
    for row in np.flatnonzero(votes.mode == "rank"):
        order = [taste(samples)[name] for _, name in sorted(zip(votes.ranks[row], votes.shown[row], strict=True))]
        assert order == sorted(order, reverse=True)
    assert simulated_modes(votes) == {"pick", "compare", "rank", "edit", "rate"}


def simulated_modes(votes: Votes) -> set[str]:
    return set(votes.mode)


@pytest.mark.parametrize("wrong", [{"careless": 2.0}, {"first": -1.0}, {"temperature": -1.0}])
def test_invalid_annotators_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="careless"):
        SimulatedAnnotator(**wrong)

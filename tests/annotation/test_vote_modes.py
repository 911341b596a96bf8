"""The contract of vote modes, over every file in annotation/modes: a new one needs a line in ``EXAMPLES``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from helpers.voting_server_cases import Caller, sampled_run, text_samples, voting_state
from upturn.annotation.db.validation import OVERALL, Answer, Refused
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.tasks import Question
from upturn.annotation.vote_mode import KIND, gives, measured_modes, mode_named
from upturn.config import components
from upturn.types import objects
from upturn.web.server import running


class Example(NamedTuple):
    """One answer by the page's form, what it says of the candidates, and an answer that does not fit the mode."""

    fields: dict[str, str]
    ranks: tuple[int, ...]
    scores: dict[str, tuple[float, ...]]
    wrong: dict[str, Any]


EXAMPLES: dict[str, Example] = {
    "pick": Example({"pick": "3"}, (0, 0, 1), {}, {"ranks": (1, 1, 0)}),
    "compare": Example({"side": "a2"}, (1, 2), {}, {"ranks": (1, 2)}),
    "rank": Example({"rank0": "3", "rank1": "3", "rank2": "1"}, (2, 2, 1), {}, {"ranks": (1, 2, 0)}),
    "rate": Example({"score0": "7"}, (), {OVERALL: (7.0,)}, {"scores": {OVERALL: (11.0,)}}),
    "edit": Example({}, (), {}, {"ranks": (2,)}),
}
NAMES = components.names(KIND)


def count_of(name: str) -> int:
    return mode_named(name).candidates or 3


def test_every_mode_has_an_example() -> None:
    assert set(NAMES) == set(EXAMPLES)


@pytest.mark.parametrize("name", NAMES)
def test_a_form_becomes_an_answer_that_the_mode_accepts(name: str) -> None:
    mode, example, count = mode_named(name), EXAMPLES[name], count_of(name)
    assert mode.name == name and mode.title and mode.instructions
    choice = mode.from_form(example.fields, count, (OVERALL,))
    assert choice.ranks == example.ranks and dict(choice.scores) == example.scores
    mode.check(Answer("id", "p", "s", "said", choice.ranks, choice.scores, choice.strength), count, (OVERALL,))
    for action in ("tie", "bad", "skip"):
        mode.check(Answer("id", "p", "s", action), count, (OVERALL,))  # type: ignore[arg-type]
    with pytest.raises(Refused):
        mode.check(Answer("id", "p", "s", "said", **example.wrong), count, (OVERALL,))
    for nonsense in ("x", "-1", "nan") if example.fields else ():
        with pytest.raises(Refused):
            given = mode.from_form(dict.fromkeys(example.fields, nonsense), count, (OVERALL,))
            mode.check(Answer("id", "p", "s", "said", given.ranks, given.scores, given.strength), count, (OVERALL,))


@pytest.mark.parametrize("name", NAMES)
def test_a_simulated_annotator_without_noise_prefers_the_better(name: str) -> None:
    """Its answer over HTTP is recorded, and the best candidate has the best rank or the higher number."""
    mode, count = mode_named(name), count_of(name)
    utility = np.array([0.0, 2.0, -1.0])[:count]
    body = mode.simulate(utility, SimulatedAnnotator(temperature=1.0), (OVERALL,))
    ranks = body.get("ranks") or [int(place == body.get("pick")) for place in range(1, count + 1)]
    if mode.feedback == "preference":
        assert ranks[int(np.argmax(utility))] == 1 and ranks.count(1) == 1
    elif mode.feedback == "rating":
        better = mode.simulate(utility + 1, SimulatedAnnotator(), (OVERALL,))
        assert better["scores"][OVERALL] > body["scores"][OVERALL]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_page_offers_what_the_mode_declares(tmp_path: Path, name: str) -> None:
    """Keys are unique, every declared field is in the form, and the example's form is recorded as the mode says."""
    run = sampled_run(tmp_path / "run", text_samples(2, 3))
    mode, example = mode_named(name), EXAMPLES[name]
    with voting_state(run, Question(name, candidates=3)) as state, running(state) as address:
        ada = Caller(address).sign_in(state.box.add_person("ada")[1])
        page = ada.call("GET", "/")[2].decode()
        body = page.split('<form id="vote"')[1].split("</form>")[0]
        assert f"<h1>{mode.instructions}</h1>" in page
        keys = re.findall(r'data-key="([^"]*)"', page)
        assert len(keys) == len(set(keys)), "two controls have the same key"
        assert {"s", "u", mode.bad.key, mode.tie.key} <= set(keys)
        for field, value in example.fields.items():
            assert f'name="{field}"' in body and (f'value="{value}"' in body or f">{value}</option>" in body)
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', body))
        assert ada.call("POST", "/vote", form=fields | example.fields)[1]["location"] == "/?note=said"
        votes = state.box.votes()
        assert votes.mode.tolist() == [name]
        assert not example.ranks or votes.ranks[0] == example.ranks


def test_lookups_by_what_modes_declare() -> None:
    modes = objects(["rate", "pick", "studio", "edit", "rate", "not_installed"])
    assert gives(modes, "rating").tolist() == [True, False, False, False, True, False]
    assert gives(modes, "correction").tolist() == [False, False, False, True, False, False]
    assert measured_modes(modes) == {"pick": "choice", "rate": "number"}

"""Simulated annotators who vote over the HTTP API: sign in, fetch a task, answer it.

Their noise is that of the scorer ``simulated_people``: person i of a crowd with one seed picks over HTTP what that
scorer's person i picks, whatever the order of the screen and the order in which tasks come.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.simulated_votes import uniforms
from upturn.annotation.vote_mode import mode_named
from upturn.errors import RunError
from upturn.types import Array, content_id
from upturn.web.server import running
from upturn.web.server_state import ServerState
from upturn.web.sessions import RateLimits, Rates, RequestRate

Reward = Callable[[str], float]
UNLIMITED = Rates(*(RequestRate(1e9, 1e9),) * 4)
_TRIES = 50  # while other annotators hold all open tasks
_SENDS = 5  # of one request: a busy machine may take longer to answer than the line waits
_WAIT = 0.05  # seconds between them


@dataclass
class Simulated:
    """What a crowd has done: votes by person, and why each ended."""

    given: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @property
    def votes(self) -> int:
        return sum(self.given)


def simulate(
    address: str, tokens: Sequence[str], rewards: Reward, voters: Sequence[SimulatedAnnotator], seed: int = 0,
    most: int | None = None,
) -> Simulated:
    """Each person answers in turn until nothing is handed to anybody, or ``most`` votes are given.

    ``rewards`` is a number for each sample id. People answer in turn, on one connection each, so that what each says of
    a task depends on the seed alone. Raises RunError where the server refuses a vote.
    """
    if len(tokens) != len(voters):
        raise ValueError(f"{len(tokens)} tokens for {len(voters)} people")
    people = [_Person(address, token, voter, place, len(tokens), seed, rewards)
              for place, (token, voter) in enumerate(zip(tokens, voters, strict=True))]
    done = Simulated([0] * len(people), [""] * len(people))
    tries = 0
    while tries < _TRIES and not all(done.ended):
        moved = False
        for place, person in enumerate(people):
            if done.ended[place] or (most is not None and done.votes >= most):
                continue
            why = person.answer()
            if why == "":
                done.given[place] += 1
                moved = True
            elif why != "later":
                done.ended[place] = why
        if most is not None and done.votes >= most:
            break
        tries = 0 if moved else tries + 1
        if not moved:
            time.sleep(_WAIT)
    for person in people:
        person.close()
    return done


@contextmanager
def crowd(state: ServerState, voters: Sequence[SimulatedAnnotator]) -> Iterator[tuple[str, list[str]]]:
    """A server over the state and a token for each of these people, called "simulated 1", … of team "simulated"."""
    there = {person.name: person.id for person in state.box.people()}
    tokens = []
    for place in range(1, len(voters) + 1):
        name = f"simulated {place}"
        known = there.get(name)
        tokens.append(state.box.new_token(known) if known else state.box.add_person(name, team="simulated")[1])
    state.limits = RateLimits(UNLIMITED)  # they answer as quickly as they can
    with running(state) as address:
        yield address, tokens


class _Person:
    def __init__(
        self, address: str, token: str, voter: SimulatedAnnotator, place: int, people: int, seed: int, rewards: Reward
    ) -> None:
        self._line = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self._voter, self._place, self._people = voter, place, people
        self._seed, self._rewards = seed, rewards
        self._headers = {"Content-Type": "application/json", "User-Agent": "upturn simulate"}
        session = self._call("POST", "/api/session", {"token": token})
        self._headers["X-CSRF-Token"] = session["csrf"]
        self._next: dict[str, Any] | None = None

    def answer(self) -> str:
        """Give one vote; why there is none to give, else ""."""
        reply = self._next or self._call("GET", "/api/task")
        self._next = None
        if reply["task"] is None:
            return str(reply["why"])
        task = reply["task"]
        name = content_id("simulated", self._seed, self._place, task["showing"])
        self._next = self._call("POST", "/api/votes", {
            "id": name, "showing": task["showing"],
            **vote_body(self._voter, task, self._place, self._people, self._seed, self._rewards),
        })["next"]
        return ""

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Asked again where no answer came, as the page does: a vote that is sent twice, under one id, counts once."""
        for _ in range(_SENDS - 1):
            try:
                return self._called(method, path, body)
            except (OSError, http.client.HTTPException):
                self._line.close()  # the next request opens it again
        return self._called(method, path, body)

    def _called(self, method: str, path: str, body: Any) -> Any:
        self._line.request(method, path, json.dumps(body) if body is not None else None, self._headers)
        answer = self._line.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RunError(f"a simulated annotator was refused ({answer.status}): {content.decode()[:200]}")
        cookie = answer.getheader("set-cookie")
        if cookie:
            self._headers["Cookie"] = cookie.split(";")[0]
        return json.loads(content)

    def close(self) -> None:
        self._line.close()


def vote_body(
    voter: SimulatedAnnotator, task: dict[str, Any], place: int, people: int, seed: int, rewards: Reward
) -> dict[str, Any]:
    """What this person answers to a task: a function of the candidates, their place in the crowd, and the seed."""
    ids = [one["sample"] for one in task["candidates"]]
    utility = felt(voter, np.array([rewards(name) for name in ids]), ids, place, people, seed)
    return mode_named(task["mode"]).simulate(utility, voter, tuple(task["attributes"]))


def felt(voter: SimulatedAnnotator, rewards: Array, ids: Sequence[str], place: int, people: int, seed: int) -> Array:
    """(K,) what a person feels about each, by position: rewards and Gumbel noise, or chance, or where it stands.

    The greatest of reward / temperature + Gumbel is a draw from the softmax.
    """
    gumbel, whim, careless = uniforms(ids, seed, place, people)
    if careless < voter.careless:
        return whim
    if whim.sum() % 1.0 < voter.first:
        return -np.arange(len(ids), dtype=np.float64)
    return rewards - voter.temperature * np.log(-np.log(gumbel)) if voter.temperature else rewards

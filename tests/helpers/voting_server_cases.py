"""Helpers for the tests of votes: runs with samples, a server state over them, and an HTTP client."""

from __future__ import annotations

import http.client
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

from upturn.annotation.content import ContentStore
from upturn.annotation.db.ballots import open_box
from upturn.annotation.tasks import Question, tasks_of
from upturn.store import parquet_tables
from upturn.store.run import Run
from upturn.types import Array, Prompt, Samples, synthetic_samples
from upturn.web.server_state import ServerState
from upturn.web.sessions import RateLimits, Rates, RequestRate

RECIPE = "name: voted\n"
EVIL = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> & more"
FREE = Rates(RequestRate(1e6, 1e6), RequestRate(1e6, 1e6), RequestRate(1e6, 1e6), RequestRate(1e6, 1e6))
WORDS = (
    "The tide came in while we were still talking.", "Nobody had counted the stairs before.", "A door stood open.",
    "It was colder than the map had promised.", "She kept the letter, and burned the envelope.",
)


def text_samples(prompts: int, candidates: int = 4, texts: Sequence[str] | None = None) -> Samples:
    asked = [Prompt(f"Write the first sentence of story {i}.") for i in range(prompts)]
    every = [(i, k) for i in range(prompts) for k in range(candidates)]
    content = texts or [f"{WORDS[(i * 3 + k) % len(WORDS)]} ({i}.{k})" for i, k in every]
    return synthetic_samples("text", content, asked, keys(prompts, candidates), "model")


def image_samples(prompts: int, candidates: int = 4, side: int = 8) -> Samples:
    from sklearn.datasets import load_digits

    found = load_digits()
    rows = [np.flatnonzero(found.target == i % 10)[k + i // 10] for i in range(prompts) for k in range(candidates)]
    images = (found.images[rows] * 15.9).astype(np.uint8)[..., None]
    if side != 8:
        images = images.repeat(side // 8, axis=1).repeat(side // 8, axis=2)
    asked = [Prompt("", i % 10) for i in range(prompts)]
    return synthetic_samples("image", images, asked, keys(prompts, candidates), "model")


def keys(prompts: int, candidates: int) -> Array:
    return np.arange(prompts * candidates).reshape(prompts, candidates)


def sampled_run(folder: Path, samples: Samples, unit: str = "rounds/001", table: str = parquet_tables.SAMPLES) -> Run:
    """A run whose unit holds these samples; created where there is none."""
    new = not (folder / "run.json").exists()
    run = Run.create(folder, RECIPE, {}) if new else Run.open(folder)
    if new:
        with run.commit("data", "load", {"classes": [f"digit {i}" for i in range(10)]}):
            pass
    with run.commit(unit, "sample" if table == parquet_tables.SAMPLES else "evaluate") as out:
        parquet_tables.write_samples(out.path / table, samples)
    run.close()
    return run


@contextmanager
def voting_state(run: Run, *questions: Question, rates: Rates = FREE, **settings: Any) -> Iterator[ServerState]:
    """A state that asks these questions; ``settings`` are the state's, ``url`` the database's."""
    contents = ContentStore(run)
    with open_box(run, settings.pop("url", None), **settings.pop("box", {})) as box:
        for question in questions:
            asked = tasks_of(run, contents, question)
            box.open_poll(
                asked.unit, question.mode, asked.tasks, overlap=question.overlap, quota=question.quota,
                attributes=question.attributes, golds=question.golds, repeats=question.repeats,
            )
        yield ServerState(run.name, box, contents, limits=RateLimits(rates), **settings)
    contents.close()


class Caller:
    """One connection and its cookie; JSON in and out, forms as a browser sends them."""

    def __init__(self, address: str) -> None:
        self.host = urlsplit(address).netloc
        self._line = http.client.HTTPConnection(self.host, timeout=60)
        self.cookie = self.csrf = self.person = ""

    def call(
        self, method: str, path: str, body: Any = None, form: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        sent = {"Cookie": self.cookie, "X-CSRF-Token": self.csrf}
        data = None
        if form is not None:
            data, sent["Content-Type"] = urlencode(form), "application/x-www-form-urlencoded"
        elif body is not None:
            data, sent["Content-Type"] = json.dumps(body), "application/json"
        self._line.request(method, path, data, {k: v for k, v in (sent | dict(headers or {})).items() if v})
        answer = self._line.getresponse()
        content = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        if "set-cookie" in found:
            self.cookie = found["set-cookie"].split(";")[0]
        return answer.status, found, content

    def json(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        status, _, content = self.call(method, path, body)
        assert status == expect, (status, content)
        return json.loads(content) if content else None

    def sign_in(self, token: str) -> Caller:
        found = self.json("POST", "/api/session", {"token": token})
        self.csrf, self.person = found["csrf"], found["person"]
        return self

    def vote(self, task: Mapping[str, Any], expect: int = 200, **answer: Any) -> Any:
        said = {"id": uuid.uuid4().hex, "showing": task["showing"]} | answer
        return self.json("POST", "/api/votes", said, expect)

    def close(self) -> None:
        self._line.close()

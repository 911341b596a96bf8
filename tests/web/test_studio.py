"""The studio with a real model in its own process; pictures enlarged; what the page shows of points."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.small_recipes import GAUSSIAN, small
from helpers.voting_server_cases import Caller, voting_state
from upturn.annotation.db.ballots import open_box
from upturn.annotation.tasks import Question
from upturn.loop import loop
from upturn.store import png
from upturn.store.run import Run
from upturn.web import page_images
from upturn.web.server import running
from upturn.web.studio_worker import Studio

pytestmark = pytest.mark.slow

LONG = 240  # seconds: the worker imports everything anew, and the machine may be busy


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    yield loop.run(small(GAUSSIAN, "rounds.count=1"), tmp_path_factory.mktemp("studio"))


def until(find: Any) -> Any:
    begun = time.monotonic()
    while not (found := find()):
        assert time.monotonic() - begun < LONG
        time.sleep(0.2)
    return found


@pytest.mark.long
def test_a_real_model_generates_four_while_annotators_vote(run: Run) -> None:
    with voting_state(run, Question("pick", overlap=3)) as state:
        state.studio = Studio(run.folder, run.incumbent() or "", state.box)
        state.studio.start()
        try:
            with running(state) as address:
                ada = Caller(address).sign_in(state.box.add_person("ada")[1])
                first = ada.json("POST", "/api/studio", {}, expect=202)["request"]
                second = ada.json("POST", "/api/studio", {}, expect=202)["request"]
                votes = 0
                while (seen := ada.json("GET", f"/api/studio/{first}"))["state"] != "done":
                    assert seen["state"] in ("queued", "making"), seen
                    task = ada.json("GET", "/api/task")["task"]
                    if task is not None:  # all are answered where the machine is slow
                        ada.vote(task, pick=1)  # voting goes on
                        votes += 1
                    time.sleep(0.1)
                assert votes > 0 and state.studio.ready == (False, ())
                other = until(lambda: (s := ada.json("GET", f"/api/studio/{second}"))["state"] == "done" and s)
                drawn = [[json.loads(one["text"]) for one in made["candidates"]] for made in (seen, other)]
                assert np.array(drawn).shape == (2, 4, 2) and len(np.unique(np.array(drawn).reshape(8, 2), axis=0)) == 8
                status, _, body = ada.call("GET", seen["candidates"][0]["picture"])
                assert status == 200 and Image.open(io.BytesIO(body)).size == (360, 360)
                answer = ada.call(
                    "POST", f"/studio/{first}/2/download", form={"csrf": ada.csrf, "id": "the-second-one"})
                assert json.loads(answer[2]) == drawn[0][1]
                taken = state.box.implicit()
                assert taken.ranks.tolist() == [(0, 1, 0, 0)] and taken.ids.tolist() == ["the-second-one"]
        finally:
            state.studio.close()


@pytest.mark.long
def test_a_missing_model_is_a_message(run: Run, tmp_path: Path) -> None:
    with open_box(run) as box:
        room = Studio(run.folder, "rounds/777", box)
        room.start()
        assert until(lambda: room.trouble)
        assert str(run.folder) not in room.trouble and room.ready is None
        room.close()


def test_enlarged() -> None:
    small_one = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1) * 3
    large = Image.open(io.BytesIO(page_images.enlarged(png.encode(small_one)[0])))
    assert large.size == (1024, 1024)
    back = np.asarray(large.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=float)
    assert np.abs(back - small_one[0, :, :, 0]).max() < 12, "enlarged is the same picture"
    huge = np.zeros((1, 4, 2000, 3), dtype=np.uint8)
    assert Image.open(io.BytesIO(page_images.enlarged(png.encode(huge)[0]))).size == (2000, 4)
    assert page_images.size(png.encode(huge)[0]) == (2000, 4)
    assert page_images.crisp(png.encode(small_one)[0]) and not page_images.crisp(png.encode(huge)[0])


@pytest.mark.parametrize(
    ("point", "at"),
    [([0.0, 0.0], (180, 180)), ([3.45, 0.0], (270, 180)), ([0.0, 3.45], (180, 90)), ([1e9, float("nan")], (336, 180)),
     ([2.0], (232, 180))],
)
def test_points_are_drawn_where_they_are(point: list[float], at: tuple[int, int]) -> None:
    image = np.asarray(Image.open(io.BytesIO(page_images.drawn(json.dumps(point).encode(), 6.0))), dtype=int)
    dark = np.argwhere((np.abs(image - [0x1B, 0x6E, 0x8C]) < 30).all(axis=2))
    assert np.abs(dark.mean(axis=0)[::-1] - at).max() < 2

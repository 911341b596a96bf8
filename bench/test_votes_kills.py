"""The voting server is killed 20 times during votes: every acknowledged vote is stored exactly once."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

from common import say

from helpers.voting_server_cases import Caller, sampled_run, text_samples
from upturn.annotation.db.ballots import open_box

KILLS = int(os.environ.get("VOTES_KILLS", "20"))
PEOPLE = 12


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).parent / "voting_server.py"), str(folder), "3", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline().startswith("ADDRESS ")
    return process


class Voting(threading.Thread):
    """A person who votes through every death of the server, and sends an unanswered vote again under its id."""

    def __init__(self, port: int, token: str) -> None:
        super().__init__(daemon=True)
        self.address, self.token = f"http://127.0.0.1:{port}", token
        self.acknowledged: list[str] = []
        self.repeated = 0
        self.end = threading.Event()
        self.trouble = ""

    def run(self) -> None:
        unsent: dict[str, object] | None = None
        while not self.end.is_set():
            try:
                line = Caller(self.address).sign_in(self.token)
                while not self.end.is_set():
                    if unsent is None:
                        task = line.json("GET", "/api/task")["task"]
                        if task is None:
                            return
                        unsent = {"id": uuid.uuid4().hex, "showing": task["showing"], "pick": 1}
                    told = line.json("POST", "/api/votes?following=false", unsent)
                    self.repeated += told["again"]
                    self.acknowledged.append(str(unsent["id"]))
                    unsent = None
            except (OSError, ConnectionError) as error:
                self.trouble = repr(error)
                time.sleep(0.05)
            except Exception as error:  # http.client's own: the answer was cut off
                if isinstance(error, AssertionError):
                    raise
                self.trouble = repr(error)
                time.sleep(0.05)


def test_killed_while_voting(tmp_path: Path) -> None:
    run = sampled_run(tmp_path / "run", text_samples(4000, 4))
    with open_box(run) as box:
        tokens = [box.add_person(f"p{i}")[1] for i in range(PEOPLE)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dice = random.Random(0)
    server = start(run.folder, port)
    people = [Voting(port, token) for token in tokens]
    for one in people:
        one.start()
    struck = []
    for _ in range(KILLS):
        before = sum(len(one.acknowledged) for one in people)
        while sum(len(one.acknowledged) for one in people) < before + 20:  # it is killed while votes come in
            assert any(one.is_alive() for one in people)
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.5))
        server.kill()
        server.wait()
        struck.append(sum(len(one.acknowledged) for one in people) - before)
        server = start(run.folder, port)
    time.sleep(1)
    for one in people:
        one.end.set()
    for one in people:
        one.join(60)
    server.kill()
    server.wait()
    acknowledged = [name for one in people for name in one.acknowledged]
    with open_box(run) as box:
        votes, given = box.votes(), box.progress().given
    stored = Counter(votes.ids)
    lost = [name for name in acknowledged if stored[name] != 1]
    say("votes, server killed", f"{KILLS} times, {min(struck)} to {max(struck)} votes between two kills")
    say("votes acknowledged, of these not there exactly once", f"{len(acknowledged)}, {len(lost)}")
    say("votes sent again after a kill that were there already", sum(one.repeated for one in people))
    assert not lost and max(stored.values()) == 1 and len(set(acknowledged)) == len(acknowledged)
    assert max(Counter(zip(votes.person, votes.task, strict=True)).values()) == 1
    assert given == len(votes) >= len(acknowledged)

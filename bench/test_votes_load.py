"""200 concurrent voters over HTTP, 20,000 votes, on SQLite and on Postgres: none lost, none duplicated.

``VOTES`` (20000), ``VOTES_RATE`` (200 a second for the p95) shorten the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
from common import once, say

from helpers import postgres as databases
from helpers.voting_server_cases import sampled_run, text_samples
from upturn.annotation.db.ballots import open_box
from upturn.store.run import Run

VOTES = int(os.environ.get("VOTES", "20000"))
RATE = int(os.environ.get("VOTES_RATE", "200"))
PEOPLE, OVERLAP = 200, 4


@contextmanager
def served(run: Run, database: str) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, str(Path(__file__).parent / "voting_server.py"), str(run.folder), str(OVERLAP), "0"]
    process = subprocess.Popen([*command, database], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("ADDRESS "), line
        yield line.split()[1], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("rate", [RATE, 0], ids=["paced", "flat-out"])
def test_many_voters(kind: str, rate: int, tmp_path: Path) -> None:
    if kind == "postgres" and databases.why_not():
        pytest.skip(databases.why_not())
    run = sampled_run(tmp_path / "run", text_samples(-(-VOTES // OVERLAP), 4))
    with databases.postgres() if kind == "postgres" else nullcontext("") as url:
        with open_box(run, url or None) as box:
            tokens = [box.add_person(f"p{i}")[1] for i in range(PEOPLE)]
        (tmp_path / "tokens").write_text("\n".join(tokens))
        with served(run, url) as (address, server):
            before = sum(server.cpu_times()[:2])
            found = once("voters.py", address, str(tmp_path / "tokens"), str(VOTES), str(rate), str(tmp_path / "acks"))
            worked = sum(server.cpu_times()[:2]) - before
        acknowledged = (tmp_path / "acks").read_text().split()
        with open_box(run, url or None) as box:
            votes, progress = box.votes(), box.progress()
    seconds = np.array(found["seconds"])
    p50, p95, p99 = np.quantile(seconds, [0.5, 0.95, 0.99])
    name = f"votes {kind}, {PEOPLE} voters, {f'{rate} a second asked' if rate else 'as quickly as they can'}"
    say(f"{name}: acknowledged, errors", f"{len(acknowledged)}, {found['errors']} {found['first']}")
    say(f"{name}: ms of the server's CPU a vote", f"{1e3 * worked / max(1, len(acknowledged)):.2f}")
    say(f"{name}: a second", f"{len(acknowledged) / found['spent']:.0f}")
    say(f"{name}: ms from vote to acknowledgement, p50, p95, p99",
        f"{1e3 * p50:.1f}, {1e3 * p95:.1f}, {1e3 * p99:.1f}")
    stored = Counter(votes.ids)
    lost, doubled = set(acknowledged) - set(stored), [n for n in stored.values() if n > 1]
    say(f"{name}: lost, doubled, tasks over their overlap",
        f"{len(lost)}, {len(doubled)}, {sum(n > OVERLAP for n in Counter(votes.task).values())}")
    assert found["errors"] == 0 and not lost and not doubled and len(votes) == len(acknowledged)
    assert max(Counter(zip(votes.person, votes.task, strict=True)).values()) == 1
    assert max(Counter(votes.task).values()) <= OVERLAP and progress.given == len(votes)
    assert len(votes) >= 0.99 * VOTES
    if kind == "sqlite" and rate == 200:
        assert p95 < 0.2

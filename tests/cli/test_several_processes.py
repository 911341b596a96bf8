"""Tests of ``upturn run --processes``: whatever ends one process ends all of them, with one message."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from helpers.small_recipes import POINTS

pytestmark = pytest.mark.slow

Training = tuple["subprocess.Popen[str]", list[psutil.Process]]
STARTED = 60.0  # seconds within which two processes are training, on a busy machine
ENDED = 30.0  # seconds within which all have to be gone
LONG = POINTS.replace("name: points\nthreads", "name: long\nthreads").replace("steps: 40,", "steps: 1000000,")


def until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def command(recipe: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "upturn", "run", str(recipe), "--runs", str(recipe.parent), "--processes", "2", *more]


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    """A launcher whose two processes have taken optimizer steps together, and those two."""
    recipe = tmp_path / "long.yaml"
    recipe.write_text(LONG)
    log = tmp_path / "long" / "rounds" / "000" / "pretrain" / ".train-progress" / "steps.jsonl"
    process = subprocess.Popen(command(recipe), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    started: list[psutil.Process] = []
    try:
        until(lambda: process.poll() is not None or (log.exists() and log.stat().st_size > 1000), STARTED)
        started += psutil.Process(process.pid).children()
        assert len(started) == 2
        yield process, started
    finally:
        process.kill()
        for child in filter(alive, started):
            child.kill()


@pytest.mark.long
@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("killed", "process 1 of 2 was ended by SIGKILL"),
        ("interrupted", "stopped. The same command resumes"),
        ("launcher killed", ""),
    ],
)
def test_all_processes_end_together_with_one_message(
    training: Training, ending: str, words: str
) -> None:
    process, started = training
    if ending == "killed":
        started[1].kill()
    else:
        process.send_signal(signal.SIGINT if ending == "interrupted" else signal.SIGKILL)
    message = process.communicate(timeout=ENDED)[1] if words else ""
    until(lambda: not any(map(alive, started)), ENDED)
    if words:
        assert process.returncode == 1
        assert words in message and message.count("upturn: ") == 1 and "Traceback" not in message


@pytest.mark.long
def test_a_mistake_in_the_data_is_one_message_of_two_processes(tmp_path: Path) -> None:
    recipe = tmp_path / "mistaken.yaml"
    recipe.write_text(POINTS.replace("data: {name: points, shape: eight_gaussians, n: 400}",
                                     "data: {name: points, shape: eight_gaussians, n: 400, held_out: 1.0}"))
    found = subprocess.run(command(recipe), capture_output=True, text=True, timeout=2 * STARTED)
    assert found.returncode == 2
    assert found.stderr.count("upturn: ") == 1 and "Traceback" not in found.stderr, found.stderr

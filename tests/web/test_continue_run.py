"""The page that goes on with its run: a person answers all that is asked, and sees what comes of it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers import chromium as browsers
from helpers.small_recipes import small
from helpers.vote_recipes import VOTED
from helpers.voting_server_cases import Caller, image_samples, sampled_run
from upturn import cli
from upturn.annotation.db.used_votes import votes_of
from upturn.errors import UserError
from upturn.loop import loop
from upturn.store.run import Run

pytestmark = pytest.mark.slow

PATIENCE = 300.0  # seconds: the machine may be busy
PICTURES = """
name: pictures
threads: 1
data: digits
models: {policy: {name: pixels, classes: 10, network: {name: mlp, width: 16, depth: 1}}}
stages: [{name: pretrain, steps: 2, batch_size: 32}]
rounds:
  count: 1
  sample: {prompts: 3, candidates: 4, settings: {steps: 2}}
  people: {mode: pick}
  curate: picked
  mix: {policy: replace, lambda: 1.0, real: 20}
  train: {steps: 2, batch_size: 16}
evaluate: {prompts: 10, metrics: [vendi], settings: {steps: 2}}
grid: {prompts: 2, per_prompt: 1}
"""


@contextmanager
def serving(run: Run) -> Iterator[tuple[str, str]]:
    """``upturn serve RUN --continue`` in a process of its own: its address and a token."""
    code = "from upturn.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(run.folder), "--port", "0", "--continue", "--no-studio"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        text = ""
        while "/signin#" not in text:
            line = process.stdout.readline()
            assert line, text
            text += line
        found = re.search(r"you: (http://127\.0\.0\.1:\d+)/signin#([\w-]{43})", text)
        assert found is not None
        yield found[1], found[2]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def until(run: Run, state: str, words: str = "") -> None:
    end = time.monotonic() + PATIENCE
    while not (run.state.state == state and words in run.state.message):
        assert time.monotonic() < end and run.state.state != "failed", run.state
        time.sleep(0.2)


@pytest.mark.long
def test_an_annotator_votes_and_the_run_continues(tmp_path: Path) -> None:
    """Round after round, by a program: new tasks come when the next round waits."""
    run = loop.run(small(VOTED, "rounds.sample.prompts=3"), tmp_path)
    with serving(run) as (address, token):
        person = Caller(address).sign_in(token)
        for number in (1, 2):
            until(run, "waiting", f"rounds/{number:03d}")
            for _ in range(3):
                task = person.json("GET", "/api/task")["task"]
                assert task is not None
                person.vote(task, pick=1)
        until(run, "done")
        shown = person.call("GET", "/")[2].decode()
        end = time.monotonic() + PATIENCE
        while "All rounds are done." not in shown:
            assert "is training on the votes" in shown and time.monotonic() < end
            time.sleep(0.5)
            shown = person.call("GET", "/")[2].decode()
        person.close()
    votes = votes_of(run)
    assert votes is not None and len(votes) == 6


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.skipif(bool(browsers.why_not()), reason=browsers.why_not())
def test_in_a_real_browser_the_quota_is_met_and_the_report_shows_it(tmp_path: Path) -> None:
    run = loop.run(small(PICTURES), tmp_path)
    assert run.state.state == "waiting"
    with browsers.chromium() as browser, serving(run) as (address, token), browsers.page_of(browser) as page:
        page.goto(f"{address}/signin#{token}")
        page.wait_for_selector("#vote")
        for key in ("1", "mouse", "3"):
            before = browsers.current_assignment(page)
            page.locator(".card").nth(1).click() if key == "mouse" else page.keyboard.press(key)
            browsers.moved_on(page, before)
        assert page.locator("h1").inner_text() == "Thank you"
        until(run, "done")
        page.goto(address)
        page.wait_for_selector("text=All rounds are done.", timeout=PATIENCE * 1000)
    assert "3 votes of 1 annotator" in (run.folder / "report.html").read_text(encoding="utf-8")
    votes = votes_of(run)
    assert votes is not None and len(votes) == 3 and set(votes.action) == {"said"}


def test_a_run_that_asks_nobody_cannot_be_gone_on_with(tmp_path: Path) -> None:
    sampled_run(tmp_path / "digits", image_samples(2))
    done = CliRunner().invoke(cli.app, ["serve", "digits", "--runs", str(tmp_path), "--continue"])
    assert isinstance(done.exception, UserError) and "does not wait for votes" in str(done.exception)

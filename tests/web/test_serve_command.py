"""The command: what it prints, what it refuses, and that it serves."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.voting_server_cases import Caller, image_samples, sampled_run
from upturn import cli
from upturn.annotation.db.ballots import open_box
from upturn.errors import UserError
from upturn.store.run import Run
from upturn.web import installed
from upturn.web.annotators_file import people_in
from upturn.web.server import bound, hosts_for, is_loopback

pytestmark = pytest.mark.slow

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    sampled_run(folder / "digits", image_samples(6))
    return folder


def started(runs: Path, *more: str) -> tuple[subprocess.Popen[str], list[str]]:
    """``upturn serve`` as a process of its own, and what it printed until it listens."""
    code = "from upturn.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", "digits", "--runs", str(runs), "--port", "0", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    while not any("/signin#" in line for line in lines):
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines.append(line)
    return process, lines


@pytest.mark.long
def test_serve_prints_a_link_that_signs_in(runs: Path) -> None:
    process, lines = started(runs)
    try:
        text = "".join(lines)
        assert "Listening on http://127.0.0.1:" in text and "this machine only" in text
        assert "answers are missing: 6 of 6 in 'pick' on rounds/001" in text
        found = re.search(r"you: (http://127\.0\.0\.1:\d+)/signin#([\w-]{43})", text)
        assert found is not None
        person = Caller(found[1]).sign_in(found[2])
        person.vote(person.json("GET", "/api/task")["task"], pick=1)
        assert person.call("GET", "/admin")[0] == 200
        assert person.call("GET", "/", headers={"Host": "elsewhere.example"})[0] == 400
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    with open_box(Run.open(runs / "digits")) as box:
        assert len(box.votes()) == 1 and [person.name for person in box.people()] == ["you"]
    process, lines = started(runs, "--new-link", "you")  # it goes on where it was
    process.kill()
    process.wait()
    assert "5 of 6 in 'pick'" in "".join(lines)


MISTAKES = [
    (["serve", "absent"], "there is no run 'absent'"),
    (["serve", "digits", "--mode", "guess"], "there is no vote mode 'guess'"),
    (["serve", "digits", "--mode", "edit"], "cannot ask about content of kind 'image'"),
    (["serve", "digits", "--round", "9"], "round 9 has no samples"),
    (["serve", "digits", "--candidates", "1"], "1 candidates at a time"),
    (["serve", "digits", "--host", "0.0.0.0"], "no annotator has an access token"),
    (["serve", "digits", "--new-link", "nobody"], "there is no annotator 'nobody'"),
    (["serve", "digits", "--people", "absent.yaml"], "there is no such file"),
    (["serve", "digits", "--certificate", "x.pem"], "go together"),
    (["serve", "digits", "--database", "mysql://x"], "cannot be opened"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=lambda v: v if isinstance(v, str) else "")
def test_serve_refuses_in_one_message(runs: Path, arguments: list[str], said: str) -> None:
    result = RUNNER.invoke(cli.app, [*arguments, "--runs", str(runs)])
    assert isinstance(result.exception, UserError) and said in str(result.exception)


def test_a_taken_port_is_one_message(runs: Path) -> None:
    held = bound("127.0.0.1", 0)
    with pytest.raises(UserError, match="cannot listen"):
        bound("127.0.0.1", held.getsockname()[1])
    held.close()


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.1.2.3", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.5", False), ("vote.example", False), ("localhost.example", False)],
)
def test_what_is_public(host: str, own: bool) -> None:
    assert is_loopback(host) == own
    assert (hosts_for(host) is not None) == own


def test_files_of_annotators(tmp_path: Path) -> None:
    path = tmp_path / "people.yaml"
    path.write_text("- {name: Ada, role: admin, team: a}\n- Grace\n- {name: Alan, quota: 20}\n")
    assert people_in(path) == [
        {"name": "Ada", "role": "admin", "team": "a", "quota": None},
        {"name": "Grace", "role": "voter", "team": "", "quota": None},
        {"name": "Alan", "role": "voter", "team": "", "quota": 20},
    ]
    table = tmp_path / "people.csv"
    table.write_text("name,role,team,quota\nAda,admin,a,\nGrace,,,\nAlan,,,20\n")
    assert people_in(table) == people_in(path)
    for text, said in (
        ("name: Ada", "a list"), ("- {team: a}", "has a name"), ("- {name: A, quota: many}", "is a number"),
        ("- {name: A, role: king}", "no role 'king'"), ("- {name: A, age: 3}", "has no 'age'"),
        ("- A\n- A", "stands there twice"), ("- {name: [", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            people_in(path)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "nh3" else real(name, *a))
    with pytest.raises(UserError, match=r"voting needs nh3. pip install upturn\[people\]"):
        installed()


def test_the_command_line_stays_light() -> None:
    heavy = ("fastapi", "sqlalchemy", "alembic", "uvicorn", "jinja2", "torch")
    code = f"import upturn.cli, sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""Tests of a kill at every crash point: finished steps are complete, others are absent, and the run resumes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import upturn.store
from helpers.crash_runs import STEPS
from upturn.errors import UserError
from upturn.store import checkpoints, crash_points, files
from upturn.store.run import Run

pytestmark = pytest.mark.slow

# One process imports everything once and has a child of its own for every run: a kill costs no start of Python.
_SERVER = """
import os, sys, traceback
sys.path[:0] = sys.argv[1:]
import sqlalchemy, torch, safetensors.torch
import upturn.store.catalog
from pathlib import Path
from helpers.crash_runs import small_run
for line in sys.stdin:
    folder, fault = line.rstrip("\\n").split("\\t")
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.environ["UPTURN_FAULT"] = fault
            small_run(Path(folder))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
Child = Callable[..., int]


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """Runs ``small_run`` in a process of its own, under a fault; gives its exit code, negative for a signal."""
    command = [sys.executable, "-c", _SERVER, *(str(Path(__file__).parents[n]) for n in range(2))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdin is not None and server.stdout is not None

        def act(folder: Path, fault: str = "") -> int:
            server.stdin.write(f"{folder}\t{fault}\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        yield act
        server.stdin.close()


def kept(folder: Path) -> dict[str, str]:
    """Every name below a run but those of times, and the hash of each: what must be the same however it came about."""
    changing = {"run.json", "state.json", "upturn.db", "upturn.db-wal", "upturn.db-shm", ".lock", "deletions.jsonl"}
    return {
        path.relative_to(folder).as_posix(): files.file_hash(path)
        for path in folder.rglob("*") if path.is_file() and path.name not in changing and path.parent.name != "stages"
    }


@pytest.fixture(scope="module")
def undisturbed(child: Child, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert child(folder) == 0
    return kept(folder)


# boundaries of a commit are reached in every step: also in the middle of the run, not only in its first step
CASES = [*crash_points.BOUNDARIES, "commit:file-moved:9", "commit:before-record:4", "commit:after-record:4",
         "state:before-rename:3"]


@pytest.mark.long
@pytest.mark.parametrize("fault", CASES)
def test_a_run_killed_at_a_boundary_is_complete_and_resumes(
    fault: str, child: Child, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert child(folder, fault) == -signal.SIGKILL, f"{fault} was not reached"
    if folder.exists():  # a run exists whole, or not at all
        run = Run.open(folder)
        run.lock()
        finished = [(record.unit, record.step) for record in run.records()]
        assert finished == STEPS[: len(finished)]
        assert run.verify().intact
        assert run.catalog().records(run.id) == run.records()
        left = [path for path in folder.rglob(".*") if path.name not in (".lock", ".train-progress")
                and ".train-progress" not in path.parts and not path.name.startswith(".state")]
        assert left == [], "what the kill left is swept"
        named = {(record.unit, name) for record in run.records() for name in record.files}
        found = {(unit, path.name) for unit in run.units() for path in run.unit(unit).iterdir()
                 if path.name not in ("stages", ".train-progress")}
        gone = {(deletion.unit, deletion.name) for deletion in run.deletions()}
        assert found == named - gone
        run.close()
    assert child(folder) == 0
    again = Run.open(folder)
    assert kept(folder) == undisturbed and again.verify().intact and again.state.state == "done"
    assert [deletion.unit for deletion in again.deletions()] == ["rounds/001"]
    assert Run.open(tmp_path / "fork").verify().intact


def test_killed_again_and_again_it_still_ends_the_same(
    child: Child, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    for fault in ("commit:file-moved:5", "checkpoint:old-removed:2", "commit:before-record", "commit:after-record"):
        assert child(folder, fault) == -signal.SIGKILL
    assert child(folder) == 0
    assert kept(folder) == undisturbed


def test_every_boundary_in_the_code_is_listed_and_the_other_way_round() -> None:
    source = "".join(path.read_text() for path in Path(upturn.store.__path__[0]).glob("*.py"))
    assert set(re.findall(r'reach\("([^"]+)"\)', source)) == set(crash_points.BOUNDARIES)


def test_an_unknown_fault_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(crash_points.VARIABLE, "commit:lunch:2")
    with pytest.raises(UserError, match="'commit:lunch' is no boundary"):
        crash_points.reach("commit:begin")
    monkeypatch.setenv(crash_points.VARIABLE, "commit:begin:1000000")
    crash_points.reach("commit:begin")


def test_a_truncated_checkpoint_is_an_error(tmp_path: Path) -> None:
    import torch

    folder = checkpoints.step_folder(tmp_path, 7)
    checkpoints.write_checkpoint(folder, {"w": torch.arange(1000)}, {"step": 7})
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, raw in whole.items():
        for size in (0, 1, len(raw) // 2, len(raw) - 2):  # the very last byte of JSON is a newline: nothing is lost
            (folder / name).write_bytes(raw[:size])
            with pytest.raises(UserError, match=re.escape(name)):
                checkpoints.read_checkpoint(folder)
        (folder / name).write_bytes(raw)
    assert checkpoints.read_checkpoint(folder)[1] == {"step": 7}

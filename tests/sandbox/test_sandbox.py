"""What a hostile program tries in the sandbox, each run for real. Without bubblewrap most are skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.sandbox_cases import attempt, judged, printed, sandboxed
from upturn.errors import UserError
from upturn.sandbox import bubblewrap
from upturn.sandbox.bubblewrap import opened
from upturn.scorers.programs import Programs

pytestmark = pytest.mark.slow


@sandboxed
def test_no_file_of_the_machine_is_seen_or_written(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    ours = (secret, Path(__file__), Path.home() / ".bashrc", Path.home() / ".ssh")
    for path in ("/etc/passwd", "/home", "/proc/self/environ", "/sys/class", "/var", "/run", *map(str, ours)):
        assert printed(attempt(f"os.stat({path!r})")) == "2\n", path
    for path in ("/x", "/usr/x", "/usr/lib/x", "/dev/x", "/dev/shm/x", "/etc/x", sys.base_prefix + "/x"):
        # read-only, not permitted, not there
        assert printed(attempt(f"open({path!r}, 'w')")) in ("30\n", "13\n", "2\n"), path
        assert not Path(path).exists()


@sandboxed
def test_the_environment_is_empty_and_descriptors_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPTURN_TEST_TOKEN", "t0ken")
    assert "t0ken" not in printed("import os\nprint(dict(os.environ))")
    held = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(held, True)
    try:
        program = "import os\nfor fd in range(3, 64):\n    try: print(fd, os.fstat(fd))\n    except OSError: pass"
        assert printed(program) == ""
    finally:
        os.close(held)


@sandboxed
def test_there_is_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        program = attempt(f"socket.create_connection(('127.0.0.1', {port}), 1)")
        assert printed(program) == "111\n"  # its own loopback: nobody listens there
        with pytest.raises(TimeoutError):
            server.accept()
    outside = attempt("socket.create_connection(('192.0.2.1', 80), 1)")
    assert printed(outside) == "101\n"  # unreachable
    assert printed("import socket\nprint([name for _, name in socket.if_nameindex()])") in ("['lo']\n", "[]\n")


@sandboxed
def test_it_has_no_rights_and_sees_no_other_process() -> None:
    assert printed(attempt("print(os.getuid() == 0, os.getpid())", "os.setuid(0)")) == "False 1\n1\n"
    assert printed(attempt(f"os.kill({os.getpid()}, 0)")) == "3\n"
    raising = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"
    assert "ValueError: not allowed to raise" in judged(raising)[1]


@sandboxed
def test_a_fork_bomb_is_bounded() -> None:
    assert printed(attempt("os.fork()")) == "11\n"
    held = ("for n in range(99):", "    print(n)", "    if os.fork() == 0: time.sleep(60)")
    assert printed(attempt(*held), processes=5).split() == ["0", "1", "2", "3", "4", "11"]
    score, said = judged("import os\nwhile True: os.fork()", processes=8, wall_seconds=3.0)
    assert score == 0.0 and "BlockingIOError" in said


@sandboxed
@pytest.mark.parametrize(
    ("program", "why", "settings"),
    [
        ("while True: pass", "CPU time", {"cpu_seconds": 1}),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "CPU", {"cpu_seconds": 1}),
        ("import time\ntime.sleep(60)", "took longer than 1 s", {"wall_seconds": 1.0}),
        ("import os, time\nos.closerange(0, 3)\ntime.sleep(60)", "took longer", {"wall_seconds": 1.0}),
        ("x = [0] * 10**9", "MemoryError", {}), ("x = b'x'\nwhile True: x += x", "MemoryError", {}),
        ("import mmap\nx = mmap.mmap(-1, 10**9)", "Cannot allocate memory", {}),
        ("while True: print('x' * 10**5)", "wrote more than 256 kB", {}),
        ("import sys\nwhile True: sys.stderr.write('x' * 10**5)", "wrote more than 256 kB", {}),
        ("open('a', 'wb').write(bytes(10**8))", "File too large", {}),
        ("for i in range(99):\n    open(str(i), 'wb').write(bytes(10**7))", "No space left on device", {}),
        ("x = [open(str(i), 'w') for i in range(999)]", "Too many open files", {}),
    ],
    ids=range(12),
)  # fmt: skip
def test_limits(program: str, why: str, settings: dict[str, Any]) -> None:
    started = time.perf_counter()
    score, said = judged(program, **settings)
    assert score == 0.0 and why in said, said
    assert time.perf_counter() - started < 20.0


@sandboxed
def test_nothing_is_left_of_a_program_that_was_stopped() -> None:
    before = set(psutil.Process().children(recursive=True))  # of other tests of this process
    assert "took longer" in judged("import time\ntime.sleep(60)", wall_seconds=0.5)[1]
    assert set(psutil.Process().children(recursive=True)) <= before


@sandboxed
@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv") or not os.path.exists("/usr/bin/python3"),
    reason="only root can become somebody else",
)
def test_somebody_who_is_not_root_gets_the_same_promises() -> None:
    """Through a namespace of users, by the machine's own Python."""
    held = attempt("while True:", "    if os.fork() == 0: time.sleep(9)", "    print('forked')")
    program = (
        "from upturn.sandbox.bubblewrap import Limits, opened\n"
        "s = opened(None)\nprint(s.as_root)\n"
        f"held = {held!r}\n"
        "print(s.run(held, Limits(processes=3)).stdout.split())\n"
        "print(s.run('import time; time.sleep(9)', Limits(wall_seconds=0.5)).stopped)\n"
        "print(s.run('while 1: pass', Limits(cpu_seconds=1)).code)\n"
        "print(s.run('f()', Limits(), [('assert 1', True), ('assert 0', True)]).errors)\n"
    )
    source = str(Path(bubblewrap.__file__).parents[2])
    ended = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-B", "-c", program],
        env={"PYTHONPATH": source, "PATH": "/usr/bin"}, capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    if "ModuleNotFoundError" in ended.stderr or "PermissionError" in ended.stderr:
        pytest.skip("the source cannot be read by others")
    assert ended.stdout.split("\n") == [
        "False", "['forked', 'forked', '11']", "it took longer than 0.5 s", "137",
        "{-1: \"NameError: name 'f' is not defined\"}", "",
    ], ended.stderr  # fmt: skip


@pytest.fixture
def path_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PATH", str(tmp_path))
    opened.cache_clear()
    yield tmp_path
    opened.cache_clear()


def test_without_bubblewrap_it_refuses_and_says_how_to_get_it(path_of_its_own: Path) -> None:
    with pytest.raises(UserError, match=r"'bwrap' is not on the PATH.*apt-get install bubblewrap"):
        Programs()


def test_bubblewrap_that_cannot_make_a_namespace_is_refused(path_of_its_own: Path) -> None:
    fake = path_of_its_own / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(UserError, match=r"cannot make a sandbox: bwrap: No permissions.*user namespaces"):
        Programs()


def test_a_bubblewrap_that_shuts_nothing_out_is_refused(path_of_its_own: Path) -> None:
    """One that runs the command as it is: programs must not run with it."""
    fake = path_of_its_own / "bwrap"
    fake.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "command = sys.argv[sys.argv.index('--info-fd') + 2 :]\nos.execv(command[0], command)\n"
    )
    fake.chmod(0o755)
    with pytest.raises(UserError, match=r"cannot make a sandbox: .*not shut out"):
        Programs()

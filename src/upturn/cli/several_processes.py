"""``upturn run --processes N``: starts N processes of this command, and ends all of them when one fails.

Each gets the environment that ``torch.distributed`` reads (RANK, WORLD_SIZE, MASTER_ADDR, …), as ``torchrun`` sets it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from upturn.errors import RunError, UserError

_POLL = 0.1  # seconds between two looks at the processes
_SETTLE = 1.0  # seconds in which the others may notice a failure for themselves, and write it down
_GRACE = 20.0  # seconds that a process has to end after an interrupt, before it is killed
_TAIL = 5  # lines of a process's messages that are quoted where it ended without a reason
_ERROR_FILE = "UPTURN_ERROR_FILE"  # where a started process writes its error instead of printing it
_LAUNCHER = "UPTURN_LAUNCHER"  # the number of the process that started it
_WAITING = 3  # exit code of a run that waits for votes


def started() -> bool:
    """Whether this process is one of several, started by ``launch`` or by another launcher."""
    return "RANK" in os.environ


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``upturn`` with these arguments in ``count`` processes on this machine; the exit code of the first.

    Only the first one prints. Raises RunError or UserError with the error of the process that failed first, and
    KeyboardInterrupt after all have ended.
    """
    with TemporaryDirectory(prefix="upturn-") as name:
        folder, processes = Path(name), list[subprocess.Popen[bytes]]()
        try:
            port = _free_port()
            for rank in range(count):
                processes.append(_start(rank, count, port, arguments, folder))
            while not _over(processes):
                time.sleep(_POLL)
            deadline = time.monotonic() + _SETTLE
            while time.monotonic() < deadline and any(process.poll() is None for process in processes):
                time.sleep(_POLL)
        finally:
            _end(processes)
        codes = [process.returncode for process in processes]
        if codes[0] == _WAITING or not any(codes):
            return codes[0]
        raise _failure(processes, folder)


def end_with_the_launcher() -> None:
    """In a started process: it ends when the process that started it is gone, even if that one was killed."""
    parent = int(os.environ.get(_LAUNCHER, "0"))
    if parent:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def report(message: str, code: int) -> bool:
    """In a started process: hand the error to the launcher, which prints one of all. False in any other process."""
    path = os.environ.get(_ERROR_FILE)
    if path is None:
        return False
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends already: an interrupt would only print a traceback
    Path(path).write_text(json.dumps({"message": message, "code": code, "time": time.time()}), encoding="utf-8")
    return True


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(10 * _POLL)
    os._exit(1)


def _start(rank: int, count: int, port: int, arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    env = {
        **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        _ERROR_FILE: str(_error_path(folder, rank)), _LAUNCHER: str(os.getpid()),
    }
    with open(_messages_path(folder, rank), "wb") as messages:
        # in a session of its own an interrupt from the terminal reaches the launcher alone, which passes it on once
        return subprocess.Popen(
            [sys.executable, "-m", "upturn", *arguments], env=env, start_new_session=True,
            stdout=None if rank == 0 else subprocess.DEVNULL, stderr=None if rank == 0 else messages,
        )


def _over(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether all ended well, or one of them did not."""
    codes = [process.poll() for process in processes]
    return None not in codes or any(code not in (None, 0) for code in codes)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt those that run; kill those that have not ended in time."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


def _failure(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> UserError:
    """The error of the process that failed first: one that was killed, else the earliest that was written down."""
    for rank, process in enumerate(processes):
        code = process.returncode
        if code < 0 and not _error_path(folder, rank).exists() and -code != signal.SIGINT:
            return RunError(
                f"process {rank} of {len(processes)} was ended by {signal.Signals(-code).name}",
                fix="Was there memory for so many processes? The same command resumes from the last checkpoint.",
            )
    errors = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("error-*.json")]
    if errors:
        first = min(errors, key=lambda error: error["time"])
        kind: type[UserError] = UserError if first["code"] == UserError.exit_code else RunError
        return kind(str(first["message"]))
    rank = next(rank for rank, process in enumerate(processes) if process.returncode)
    lines = _messages_path(folder, rank).read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    quoted = " / ".join(lines)
    return RunError(f"process {rank} of {len(processes)} ended with exit code {processes[rank].returncode}: {quoted}")


def _error_path(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}.json"


def _messages_path(folder: Path, rank: int) -> Path:
    return folder / f"messages-{rank}.txt"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

"""What comes out of a process in a sandbox, read while it runs, up to a limit."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

_START_SECONDS = 30.0  # for the sandbox and its interpreter, on a machine that is busy
_CHUNK = 1 << 16
_NUMBER = re.compile(r"-?[0-9]{1,6}")
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    ready    whether the program was begun at all
    code     the exit code, 128 + n for signal n
    stopped  why it was stopped from outside, "" where it was not
    errors   by step: what it raised, None where it went well; -1 is the program itself
    """

    ready: bool
    code: int
    stopped: str
    stdout: str
    last_error: str  # the last line of its standard error
    errors: Mapping[int, str | None] = field(default_factory=dict)


def sealed(content: bytes) -> int:
    """A descriptor of a file in memory that no one can change, read from its start."""
    fd = os.memfd_create("upturn", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def follow(
    process: subprocess.Popen[bytes], report: int, info: int, secret: str, seconds: float, most_bytes: int
) -> Ended:
    """Read until the process has ended, or is stopped for its wall time (from when it is ready) or its output.

    report  the pipe that the inside writes to;  info  the one in which bubblewrap names its first process
    """
    assert process.stdout is not None and process.stderr is not None
    pipes = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray(), report: bytearray()}
    stopped = ""
    deadline, begun = time.monotonic() + _START_SECONDS, False
    try:
        with selectors.DefaultSelector() as selector:
            for fd in pipes:
                selector.register(fd, selectors.EVENT_READ)
            while selector.get_map() and not stopped:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                for key, _ in ready:
                    chunk = os.read(key.fd, _CHUNK)
                    pipes[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
                if not begun and pipes[report]:
                    begun, deadline = True, time.monotonic() + seconds
                if sum(map(len, pipes.values())) > most_bytes:
                    stopped = f"it wrote more than {most_bytes >> 10} kB"
                elif time.monotonic() >= deadline:
                    stopped = f"it took longer than {seconds if begun else _START_SECONDS:g} s"
        if not stopped:
            process.wait()  # bubblewrap holds the pipes itself: they end when it does
    finally:
        _end(process, info)
        process.stdout.close()
        process.stderr.close()
    out, error = (bytes(pipes[fd]).decode("utf-8", "replace") for fd in list(pipes)[:2])
    lines = [line for line in error.splitlines() if line.strip()]
    last = _printable(lines[-1]) if lines else ""
    return Ended(begun, process.returncode, stopped, out, last, _errors(bytes(pipes[report]), secret))


def _end(process: subprocess.Popen[bytes], info: int) -> None:
    """Kill the first process inside, and with it all others there; bubblewrap collects it: no zombie is left."""
    if process.poll() is not None:
        return
    if select.select([info], [], [], 0)[0]:
        # the first value is bubblewrap's: it writes before anything inside begins
        with contextlib.suppress(ValueError, KeyError, ProcessLookupError):
            first, _ = json.JSONDecoder().raw_decode(os.read(info, _CHUNK).decode())
            os.kill(first["child-pid"], signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
    process.kill()
    process.wait()


def _errors(report: bytes, secret: str) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    for line in report.decode("utf-8", "replace").split("\n"):
        words = line.split(" ", 2)
        if len(words) == 3 and words[0] == secret and _NUMBER.fullmatch(words[1]):
            found[int(words[1])] = _printable(words[2]) or None
    return found


def _printable(text: str) -> str:
    """Without what could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)

"""A sandbox for programs that nobody has read: ``bubblewrap``, with limits that the program cannot raise.

No network (a network namespace of its own), no files but the system's, read-only, and an empty work folder in memory;
no processes but its own, no environment. Memory, CPU time, wall time, processes, file sizes and output are limited.
Memory is limited a process: a program with n processes may use n times as much. A kernel with a hole is no sandbox.
"""

from __future__ import annotations

import functools
import itertools
import json
import marshal
import os
import secrets
import shutil
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from upturn.errors import RunError, UserError
from upturn.sandbox.output import Ended, follow, sealed

_WHERE = "scorer 'programs'"
_MB = 1 << 20
_OPEN_FILES = 64
_MARSHAL = 2  # the version of the format that every Python 3 reads
_FIRST_UID = 1 << 30  # far above any person's, in steps of one a run
_UIDS = itertools.count()
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives")
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": "/program", "TMPDIR": "/program", "LANG": "C.UTF-8", "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",  # the order of a set is the same in every run
    "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Limits:
    """Of one run of a program."""

    memory_mb: int = 512
    cpu_seconds: int = 5
    wall_seconds: float = 10.0
    processes: int = 1
    files_mb: int = 16
    output_kb: int = 256


@dataclass(frozen=True)
class Sandbox:
    """A way to run programs that works on this machine: see :func:`opened`.

    as_root       root makes the namespaces, and the program runs as a user whom no one else is. Root counts no
                  processes, so the other way, a namespace of users, would not limit them
    seals_userns  no user namespace can be created inside that one
    """

    bwrap: str
    python: tuple[str, ...]  # the interpreter and its options
    mounts: tuple[str, ...]  # what it needs to see, read-only
    as_root: bool
    seals_userns: bool

    def run(self, program: str, limits: Limits, steps: list[tuple[str, bool]] | None = None, stdin: str = "") -> Ended:
        """One run: alone with ``stdin``, or with ``steps`` after it, in its own names.

        Raises RunError where the sandbox does not start.
        """
        ended = self._run(program, limits, steps, stdin)
        if not ended.ready:
            raise RunError(
                f"the sandbox did not start: {ended.last_error or ended.stopped or 'no reason given'}", where=_WHERE,
                fix="The machine may be out of memory or processes: lower 'at_once', then resume.",
            )
        return ended

    def _run(self, program: str, limits: Limits, steps: list[tuple[str, bool]] | None, stdin: str) -> Ended:
        secret = secrets.token_hex(8)
        uid = _FIRST_UID + (os.getpid() * 1024 + next(_UIDS) % 1024) % _FIRST_UID if self.as_root else 0
        task = {"program": program, "steps": steps, "secret": secret, "uid": uid, "limits": self._limits(limits)}
        with ExitStack() as ours, ExitStack() as theirs:  # theirs are closed here once the process has them
            report, report_end = _pipe(ours, theirs)
            info, info_end = _pipe(ours, theirs)
            task_fd, stdin_fd = sealed(marshal.dumps(task, _MARSHAL)), sealed(stdin.encode("utf-8", "replace"))
            theirs.callback(os.close, task_fd)
            theirs.callback(os.close, stdin_fd)
            process = subprocess.Popen(
                [
                    *self._command(limits), "--info-fd", str(info_end),
                    *self.python, "-c", _inside(), str(task_fd), str(report_end),
                ],
                env={}, cwd="/", stdin=stdin_fd, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=(task_fd, report_end, info_end),
            )
            theirs.close()
            return follow(process, report, info, secret, limits.wall_seconds, limits.output_kb << 10)

    def _limits(self, limits: Limits) -> dict[str, int]:
        files, memory = limits.files_mb * _MB, limits.memory_mb * _MB
        return {
            "AS": memory, "CPU": limits.cpu_seconds, "FSIZE": files, "NOFILE": _OPEN_FILES, "CORE": 0,
            "NPROC": limits.processes,
        }

    def _command(self, limits: Limits) -> list[str]:
        if self.as_root:
            identity = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
            apart = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        else:
            identity = ["--uid", "65534", "--gid", "65534"]
            apart = ["--unshare-all", "--unshare-user", *(["--disable-userns"] if self.seals_userns else [])]
        environment = [word for name, value in _ENVIRONMENT.items() for word in ("--setenv", name, value)]
        # as pid 1: else bubblewrap puts a process between, a zombie for ever where no one collects orphans (Docker)
        return [
            self.bwrap, *apart, *identity, "--as-pid-1", "--die-with-parent", "--new-session",
            "--clearenv", *environment, *self.mounts, "--dev", "/dev", "--remount-ro", "/dev",
            "--perms", "1777", "--size", str(limits.files_mb * _MB), "--tmpfs", "/program", "--chdir", "/program",
            "--remount-ro", "/",
        ]


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """The end that is read, and the one that is written to."""
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    return reading, writing


@functools.cache
def opened(python: str | None) -> Sandbox:
    """The sandbox of this machine, tried once. ``python``: an interpreter whose packages may be imported; None: the
    interpreter that runs this, with its standard library alone.

    Raises UserError without bubblewrap, or where it cannot make a sandbox that keeps what it promises.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise UserError(
            "programs that a model wrote run only inside bubblewrap, and 'bwrap' is not on the PATH", where=_WHERE,
            fix="Install it ('apt-get install bubblewrap', 'dnf install bubblewrap'; Linux only).",
        )
    interpreter, mounts = _interpreter(python)
    ways = [(False, True), (False, False)]  # bubblewrap before 0.8 cannot seal
    reasons = []
    for as_root, seals in [(True, False), *ways] if os.geteuid() == 0 else ways:
        sandbox = Sandbox(bwrap, interpreter, mounts, as_root, seals)
        why = _fault(sandbox)
        if why is None:
            return sandbox
        reasons.append(why)
    raise UserError(
        f"bubblewrap is here ({bwrap}), but cannot make a sandbox: {'; '.join(dict.fromkeys(reasons))}", where=_WHERE,
        fix="It needs version 0.6 and user namespaces (Linux 5.14): containers allow them with "
        "'--security-opt seccomp=unconfined', Ubuntu with 'sysctl kernel.apparmor_restrict_unprivileged_userns=0'.",
    )


_PROBE = """
import os, socket
try:
    if os.fork() == 0:
        os._exit(0)
    forks = True
except OSError:
    forks = False
writes = not all(os.statvfs(path).f_flag & os.ST_RDONLY for path in ("/", "/usr", "/dev"))
"""
_PROMISES = {
    "assert not forks": "processes are not limited",
    "assert not writes and not os.path.exists('/etc/passwd') and not os.path.exists('/home')": "files are not shut out",
    "assert {name for _, name in socket.if_nameindex()} <= {'lo'}": "the network is not shut out",
}


def _fault(sandbox: Sandbox) -> str | None:
    """Why this sandbox is none, or None."""
    ended = sandbox._run(_PROBE, Limits(), [(step, True) for step in _PROMISES], "")
    if not ended.ready:
        return ended.last_error or ended.stopped or f"it ended with code {ended.code}"
    broken = [promise for number, promise in enumerate(_PROMISES.values()) if ended.errors.get(number, "") is not None]
    return f"{', '.join(broken)} ({ended.errors.get(-1) or ended.last_error or 'tried'})" if broken else None


def _interpreter(python: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The command of the interpreter inside, and bubblewrap's words to show what it needs."""
    if python is None:
        command: tuple[str, ...] = (os.path.realpath(sys.executable), "-s", "-S")
        folders = [sys.base_prefix]
    else:
        script = "import json, sys; print(json.dumps([sys.executable, sys.prefix, sys.base_prefix]))"
        try:
            ended = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True, timeout=60)
            executable, *folders = json.loads(ended.stdout)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise UserError(
                f"'{python}' is no Python interpreter that runs: {error}", where=f"{_WHERE}, python",
                fix="Mend the path.",
            ) from error
        command = (executable, "-s")
    mounts = ["--perms", "0755", "--dir", "/etc"]
    mounts += itertools.chain.from_iterable(_system(path) for path in _SYSTEM)
    wanted = {path for folder in folders for path in (folder, os.path.realpath(folder))}
    for folder in sorted(wanted):  # a parent before what it holds
        if folder != "/usr" and not folder.startswith("/usr/"):
            for parent in reversed(Path(folder).parents[:-1]):  # bubblewrap's own are for root's eyes only
                mounts += ["--perms", "0755", "--dir", str(parent)]
            mounts += ["--ro-bind", folder, folder]
    return command, tuple(mounts)


def _system(path: str) -> list[str]:
    if os.path.islink(path):
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path] if os.path.exists(path) else []


@functools.cache
def _inside() -> str:
    return Path(__file__).with_name("guest.py").read_text(encoding="utf-8")

"""A Postgres server for tests: started in a temporary folder, stopped with the process."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """Where initdb and pg_ctl are: Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


def why_not() -> str:
    if programs() is None:
        return "Postgres is not installed (apt-get install postgresql)"
    return "" if os.geteuid() != 0 or _user() else "Postgres does not run as root, and there is no user for it"


def _user() -> str:
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return ""


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database; the server ends with the block."""
    where = programs()
    assert where is not None
    folder = Path(tempfile.mkdtemp(prefix="upturn-pg-", dir="/tmp"))
    switch: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, _user())
        switch = ["setpriv", f"--reuid={_user()}", "--regid=" + str(pwd.getpwnam(_user()).pw_gid), "--clear-groups"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"

    def call(*command: str) -> None:
        # into a file: the server keeps what it is given open, and would hold a pipe
        with open(os.devnull, "w") as nothing:
            done = subprocess.run([*switch, *command], stdout=nothing, stderr=nothing, cwd=folder, check=False)
        if done.returncode:
            log = folder / "log"
            said = log.read_text() if log.exists() else ""
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {said[-2000:]}")

    try:
        call(str(where / "initdb"), "-D", str(data), "-U", "upturn", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c max_connections=50"
        call(str(where / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql+psycopg://upturn@127.0.0.1:{port}/postgres"
        finally:
            call(str(where / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)

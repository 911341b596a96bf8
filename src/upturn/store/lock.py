"""One process writes a run: an advisory lock that the kernel frees when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from upturn.errors import RunError
from upturn.store import files

_DIGITS = 20  # bytes that hold any process id


class Lock:
    """The lock of a run's folder; held from ``acquire`` to ``release`` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        return self._handle is not None

    def acquire(self) -> None:
        """Raises RunError naming the process that holds it, UserError without permission to write."""
        with files.disk_errors(self._path):
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            other = _process(handle)
            os.close(handle)
            raise RunError(
                f"process {other or 'unknown'} is at work on this run", where=str(self._path.parent),
                fix="Wait for it, or end it; what it has finished is kept.",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        self._handle = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def holder(self) -> int | None:
        """The process that holds it now, None where there is none."""
        if self._handle is not None:
            return os.getpid()
        try:
            handle = os.open(self._path, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return _process(handle)
        finally:
            os.close(handle)
        return None

    def __del__(self) -> None:
        self.release()


def _process(handle: int) -> int | None:
    text = os.pread(handle, _DIGITS, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else None

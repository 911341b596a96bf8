"""The log of a training: one JSON line for every step, in the order of the steps, none twice after a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

NAME = "steps.jsonl"  # in the folder of a training's progress, and then in its unit


class StepLog:
    """Appends to steps.jsonl under ``folder``, behind the line of step ``done``; None writes nothing.

    What a stopped training logged after the checkpoint that it resumes from is cut off: those steps run again.
    """

    def __init__(self, folder: Path | None, done: int) -> None:
        self._file: BinaryIO | None = None if folder is None else _opened(folder / NAME, done)

    def write(self, values: Mapping[str, float]) -> None:
        """The values of one step; what is not finite becomes null."""
        if self._file is not None:
            plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
            self._file.write(json.dumps(plain).encode() + b"\n")
            self._file.flush()

    def sync(self) -> None:
        """Before a checkpoint: every line up to its step is on the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _opened(path: Path, done: int) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115 - the log closes it
    end = 0
    for line in file:
        if not line.endswith(b"\n") or json.loads(line)["step"] > done:
            break
        end += len(line)
    file.seek(end)
    file.truncate()
    return file

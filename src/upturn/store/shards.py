"""Rows of tensors under keys, in safetensors files that are written whole or not at all and memory-mapped when read.

    <folder>/<kind>-<id of what made them>/<first 32 digits of its SHA-256>.safetensors

Any number of processes may read and write: a file has its name only when it is on the disk, it is never changed after
that, and its name is the hash of its bytes. Two processes that compute the same row write it twice,
which costs only space. Each file carries its keys and what computed it (weights, sizes, versions); rows that something
else computed are in another folder, so that they are never taken for these, and can be counted.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upturn.errors import RunError
from upturn.store import files
from upturn.store.crash_points import reach
from upturn.types import Stacks, content_id

if TYPE_CHECKING:
    from torch import Tensor

Row = Mapping[str, "Tensor"]  # (1, …) each
_BYTES = 64 << 20  # of the rows that are written as one file
_SECONDS = 60.0  # after which rows are written, however few: so much is lost in a kill
_ABANDONED = 3600.0  # seconds after which a draft is one of a process that was killed
_SUFFIX = ".safetensors"


class Shards:
    """The rows of one kind from one origin; ``made_by`` is all that they depend on besides their keys."""

    def __init__(self, root: Path, kind: str, made_by: Mapping[str, str]) -> None:
        self.root, self.kind, self.made_by = root, kind, dict(made_by)
        self.folder = root / f"{kind}-{content_id(json.dumps(self.made_by, sort_keys=True))}"
        self.damaged = 0  # files whose bytes do not match their name: removed
        self._headers: dict[Path, tuple[str, ...] | None] = {}  # keys of each file that was looked at; None: unreadable
        self._opened: dict[Path, dict[str, Tensor]] = {}  # tensors of those that were needed: mapped, not read
        self._where: dict[str, tuple[Path, int]] = {}

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Places of the keys that no file has, each key once; damaged files are removed and counted."""
        wanted = set(keys) - self._where.keys()
        for path in _files(self.folder) if wanted else ():
            if path not in self._headers:
                self._headers[path] = (_header(path) or (None,))[0]
            keys_there = self._headers[path]
            if path not in self._opened and (keys_there is None or wanted.intersection(keys_there)):
                self._open(path, keys_there or ())
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        return sorted(place for key, place in first.items() if key not in self._where)

    def _open(self, path: Path, keys: Sequence[str]) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            if files.file_hash(path)[:32] != path.stem or not keys:
                raise SafetensorError("its bytes are not those that were written")
            self._opened[path] = load_file(path)
        except FileNotFoundError:  # removed by another process in the meantime
            return
        except (SafetensorError, OSError):
            self.damaged += 1
            path.unlink(missing_ok=True)
            del self._headers[path]  # the same rows computed again have the same name
            return
        for row, key in enumerate(keys):
            self._where.setdefault(key, (path, row))

    def filled(self, keys: Sequence[str], make: Callable[[Sequence[int]], Iterator[Row]]) -> dict[str, Stacks]:
        """The row of each key, by name of its tensors; ``make`` yields rows for the places that are missing, in turn.

        All is read from the files, so that it does not depend on who wrote them. Raises RunError for a full disk,
        UserError without permission.
        """
        fresh = self.missing(keys)
        if fresh:
            self._write([keys[place] for place in fresh], make(fresh))
            if self.missing(keys):
                raise RunError(
                    "what was written a moment ago is gone", where=str(self.folder),
                    fix="Leave the folder alone while it is in use, and run again.",
                )
        return self._rows(keys)

    def _write(self, keys: Sequence[str], rows: Iterator[Row]) -> None:
        held: list[Row] = []
        size, began, done = 0, time.monotonic(), 0
        for row in rows:
            held.append(row)
            size += sum(value.numel() * value.element_size() for value in row.values())
            if size >= _BYTES or time.monotonic() - began >= _SECONDS:
                self.add(keys[done : done + len(held)], held)
                done += len(held)
                held, size, began = [], 0, time.monotonic()
        if held:
            self.add(keys[done:], held)

    def add(self, keys: Sequence[str], rows: Sequence[Row]) -> None:
        """One file with these rows, on the disk when this returns."""
        import torch
        from safetensors.torch import save_file

        with files.disk_errors(self.folder):
            files.make_folder(self.folder)
            self._sweep()
            draft = self.folder / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
            whole = {name: torch.cat([row[name].cpu() for row in rows]).contiguous() for name in rows[0]}
            origin = json.dumps(self.made_by, sort_keys=True)
            metadata = {"keys": json.dumps(list(keys)), "made_by": origin, "format": "pt"}
            save_file(whole, draft, metadata=metadata)
            files.sync(draft)
            reach("shard:written")
            os.rename(draft, self.folder / f"{files.file_hash(draft)[:32]}{_SUFFIX}")
            files.sync(self.folder)
            reach("shard:after-rename")

    def _sweep(self) -> None:
        for draft in self.folder.glob(".*.tmp"):
            try:
                if time.time() - draft.stat().st_mtime > _ABANDONED:
                    draft.unlink()
            except FileNotFoundError:
                continue

    def _rows(self, keys: Sequence[str]) -> dict[str, Stacks]:
        import torch

        places = [self._where[key] for key in keys]
        number = {path: i for i, path in enumerate(dict.fromkeys(path for path, _ in places))}
        which = torch.tensor([number[path] for path, _ in places], dtype=torch.int64)
        row = torch.tensor([row for _, row in places], dtype=torch.int64)
        names = self._opened[next(iter(number))] if number else {}
        return {name: Stacks(tuple(self._opened[path][name] for path in number), which, row) for name in names}

    def elsewhere(self, keys: Sequence[str]) -> list[tuple[dict[str, str], int, int]]:
        """What else computed rows of this kind here, how many have these keys, and how many there are."""
        wanted, found = set(keys), []
        for folder in sorted(self.root.glob(f"{self.kind}-*")) if self.root.is_dir() else ():
            if folder == self.folder:
                continue
            held: Counter[str] = Counter()
            made_by: dict[str, str] = {}
            for path in _files(folder):
                own, made_by = _header(path) or ((), made_by)
                held.update(own)
            if made_by:
                found.append((made_by, len(wanted & held.keys()), len(held)))
        return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"[!.]*{_SUFFIX}")) if folder.is_dir() else []


def _header(path: Path) -> tuple[tuple[str, ...], dict[str, str]] | None:
    """The keys of a file and what computed it, from its metadata; None where it cannot be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return tuple(json.loads(metadata["keys"])), json.loads(metadata["made_by"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None

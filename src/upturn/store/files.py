"""Durable files: fsync, whole-or-nothing writes, hashes, clear disk errors."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from upturn.errors import RunError, UserError

_CHUNK = 1 << 20  # bytes read at a time when hashing
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "file too large")  # of libraries that hide errno


def sync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file below a folder, then every folder, the innermost first."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(where, name))
        sync(Path(where))


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each new name flushed to the disk. UserError where a file is in the way."""
    missing = [where for where in (folder, *folder.parents) if not where.exists()]
    for where in (folder, *folder.parents):
        if where.exists() and not where.is_dir():
            raise UserError("there is a file where a folder must be created", where=str(where),
                            fix="Name another folder (--runs), or move the file away.")
    folder.mkdir(parents=True, exist_ok=True)
    for where in missing:
        sync(where.parent)


def write_text(path: Path, text: str) -> None:
    """A whole file or the one that stood there before: temporary name, fsync, rename, fsync of the parent."""
    draft = path.with_name(f".{path.name}.tmp")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync(path.parent)


def plain(value: object) -> Any:
    """``value`` as strict JSON can say it: numpy numbers as numbers, tuples and arrays as lists, NaN, ±inf as null."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def to_json(value: object) -> str:
    """Canonical: sorted keys, one indentation, a final newline; equal values give equal bytes."""
    return json.dumps(plain(value), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """The value in a JSON file; UserError naming the file where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("there is no such file", where=str(path)) from error
    except (ValueError, OSError) as error:
        raise UserError(f"this file cannot be read: {error}", where=str(path), fix="It is damaged.") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_hash(folder: Path) -> str:
    """SHA-256 over the sorted relative names and bytes of all files below a folder: *the same bytes* is this hash.

    Empty folders, times and permissions do not count.
    """
    digest = hashlib.sha256()
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        raw = name.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(bytes.fromhex(file_hash(folder / name)))
    return digest.hexdigest()


def any_hash(path: Path) -> str:
    """``tree_hash`` of a folder, ``file_hash`` of a file."""
    return tree_hash(path) if path.is_dir() else file_hash(path)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is none."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size if path.exists() else 0


def remove(path: Path) -> None:
    """Remove a file, a folder, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def disk_error(error: BaseException, path: Path) -> UserError | None:
    """A clear message for a full disk or a missing permission; None where the error is of another kind."""
    code = error.errno if isinstance(error, OSError) else None
    named = getattr(error, "filename", None)
    where = str(named if isinstance(named, str) and named else path)
    if code in _FULL or (not isinstance(error, UserError) and any(word in str(error).lower() for word in _FULL_WORDS)):
        return RunError(
            "the disk is full", where=where,
            fix="Every finished step is kept: free disk space (or lower 'keep:' in the recipe) and run it again.",
        )
    if code in _DENIED:
        return UserError("there is no permission to write here", where=where, fix="Choose another folder.")
    return None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk and missing permission into a RunError or UserError that names the path."""
    try:
        yield
    except Exception as error:
        clear = disk_error(error, path)
        if clear is None:
            raise
        raise clear from error

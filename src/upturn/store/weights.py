"""Weights that have not changed are not written again: their file is linked."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


_THREADS = 8  # hashing releases the interpreter's lock
_WORTH_A_LINK = 1 << 14  # bytes: a smaller file takes a few blocks of the disk


def digest(weights: Mapping[str, Tensor]) -> str:
    """32 hexadecimal digits that name these weights: equal where every name, type, shape and number is."""
    import torch

    def one(item: tuple[str, Tensor]) -> bytes:
        name, tensor = item
        flat = tensor.detach().cpu().contiguous()
        found = hashlib.blake2b(f"{name}\x1f{flat.dtype}\x1f{tuple(flat.shape)}\x1f".encode(), digest_size=16)
        raw: Any = flat.reshape(-1).view(torch.uint8).numpy()
        found.update(raw)
        return found.digest()

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return hashlib.blake2b(b"".join(pool.map(one, sorted(weights.items()))), digest_size=16).hexdigest()


def linked(source: Path | None, target: Path, weights: Mapping[str, Tensor]) -> bool:
    """Make ``target`` the file ``source`` (a hard link, a copy where there can be none) if that holds these weights.

    False, and nothing but an old ``target`` gone, where it does not: every number is compared. A weight that is
    another's under a second name (tied) may be missing in the file. An old ``target`` is never written into: it may be
    a link to weights that others keep.
    """
    target.unlink(missing_ok=True)
    if source is None or not source.is_file() or not _holds(source, weights):
        return False
    try:
        link(source, target)
    except FileNotFoundError:  # removed meanwhile
        return False
    return True


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy on a disk that knows none or where ``source`` is on another."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_equal(source: Path, target: Path) -> None:
    """Files below ``target`` with the bytes of those of the same name below ``source`` become hard links to them."""
    for path in sorted(target.rglob("*")):
        same = source / path.relative_to(target)
        if not path.is_file() or not same.is_file() or same.samefile(path) or path.stat().st_size < _WORTH_A_LINK:
            continue
        if filecmp.cmp(same, path, shallow=False):
            draft = path.with_name(f".{path.name}.tmp")
            link(same, draft)
            os.replace(draft, path)


def _holds(source: Path, weights: Mapping[str, Tensor]) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, framework="pt") as file:
            stored = sorted(file.keys())
            owners = {weights[name].data_ptr() for name in stored if name in weights}
            # libraries save some weights under an older name: those are found by what they hold
            renamed = {name for name in weights.keys() - set(stored) if weights[name].data_ptr() not in owners}
            for name in stored:
                kept = file.get_tensor(name)
                called = [name] if name in weights else sorted(renamed)
                found = next((other for other in called if _same(kept, weights[other])), None)
                if found is None:
                    return False
                renamed.discard(found)
            return not renamed
    except (SafetensorError, OSError):
        return False


def _same(kept: Tensor, now: Tensor) -> bool:
    import torch

    return kept.dtype == now.dtype and kept.shape == now.shape and torch.equal(kept, now.detach().cpu())

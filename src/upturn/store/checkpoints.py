"""Checkpoints: tensors as safetensors, scalars as canonical JSON, written whole or not at all, checked when read.

    <folder>/step-00000123/weights.safetensors   scalars.json   digest.json

``digest.json`` holds the SHA-256 of the other two, so that a damaged file is detected.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upturn.errors import UserError
from upturn.store import files
from upturn.store.crash_points import reach
from upturn.store.files import tree_hash

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["latest", "prune_checkpoints", "read_checkpoint", "step_folder", "tree_hash", "write_checkpoint"]

WEIGHTS, SCALARS, DIGEST = "weights.safetensors", "scalars.json", "digest.json"
_STEP = re.compile(r"step-(\d{8,})")


def step_folder(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of an optimizer step: ``step-00000123``."""
    return folder / f"step-{step:08d}"


def write_checkpoint(folder: Path, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Write ``folder`` (its parents are created) whole or not at all; an existing one is replaced.

    ``scalars`` is anything JSON can say; floats come back to the last bit, NaN and ±inf too.
    Raises RunError for a full disk, UserError without permission.
    """
    with files.disk_errors(folder):
        files.make_folder(folder.parent)
        draft = folder.with_name(f".{folder.name}.tmp")
        files.remove(draft)
        draft.mkdir()
        reach("checkpoint:begin")
        try:
            _write_tensors(draft / WEIGHTS, tensors)
            text = json.dumps(dict(scalars), sort_keys=True, indent=1)
            (draft / SCALARS).write_text(text + "\n", encoding="utf-8")
            digests = {name: files.file_hash(draft / name) for name in (WEIGHTS, SCALARS)}
            (draft / DIGEST).write_text(files.to_json(digests), encoding="utf-8")
            reach("checkpoint:written")
            files.sync_tree(draft)
            reach("checkpoint:after-fsync")
            if folder.exists():
                files.remove(folder)
                reach("checkpoint:old-removed")
            os.rename(draft, folder)
            files.sync(folder.parent)
        except BaseException:
            files.remove(draft)
            raise
    reach("checkpoint:after-rename")


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    seen: set[int] = set()
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().to("cpu").contiguous()
        where = flat.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory (tied weights): each gets its own bytes
        whole[name] = flat.clone() if where in seen else flat
        seen.add(where)
    save_file(whole, path, metadata={"format": "pt"})


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and scalars of a checkpoint.

    Raises UserError naming the file that is missing or damaged.
    """
    fix = f"Remove {folder} to resume from the checkpoint before it."
    digests = files.read_json(folder / DIGEST)
    for name in (WEIGHTS, SCALARS):
        path = folder / name
        if not path.is_file():
            raise UserError("this file of a checkpoint is missing", where=str(path), fix=fix)
        if not isinstance(digests, dict) or files.file_hash(path) != digests.get(name):
            raise UserError("this file of a checkpoint is damaged: its hash is not the one written", where=str(path),
                            fix=fix)
    from safetensors.torch import load_file

    return load_file(folder / WEIGHTS), json.loads((folder / SCALARS).read_text(encoding="utf-8"))


def _steps(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    named = ((_STEP.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in named if match and (path / DIGEST).is_file())


def latest(folder: Path) -> Path | None:
    """The complete checkpoint of the highest step below ``folder``; None where there is none."""
    steps = _steps(folder)
    return steps[-1][1] if steps else None


def prune_checkpoints(folder: Path, keep: int) -> list[Path]:
    """Remove all but the ``keep`` newest checkpoints, the oldest first, and what a kill left of unfinished ones."""
    if keep < 1:
        raise ValueError("at least one checkpoint is kept")
    old = [path for _, path in _steps(folder)[:-keep]]
    for path in old:
        # under a hidden name it is no checkpoint any more, so that none is ever seen in part
        hidden = path.with_name(f".{path.name}.tmp")
        files.remove(hidden)
        os.rename(path, hidden)
        files.remove(hidden)
        reach("checkpoint:pruned")
    for draft in folder.glob(".step-*.tmp"):
        files.remove(draft)
    return old

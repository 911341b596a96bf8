"""Weights of base models, stored once beside the runs: every run that starts from one holds a hard link to its file.

    runs/.bases/<digest>.safetensors     digest: of names, types, shapes and numbers (``weights.digest``)

A run therefore stays whole when it is copied or moved to another disk, and no file of it can be missing. A base that no
run links any more is removed by ``sweep``. On a disk without hard links nothing is stored here: runs hold copies.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from upturn.store.new_run import IDENTITY

FOLDER = ".bases"
VARIABLE = "UPTURN_BASES"  # a folder for the runs of several folders on one disk
_ENDING = ".safetensors"
_OURS = re.compile(r"[0-9a-f]{32}\.safetensors|\.[0-9a-f]{32}\.safetensors\.\d+")


def folder_of(runs: Path) -> Path:
    """Where the bases of the runs in ``runs`` are stored."""
    return Path(os.environ.get(VARIABLE) or runs / FOLDER)


def entry(target: Path, digest: str) -> Path | None:
    """The path in the store, there or not, for a file ``target`` of a run; None outside of runs: an export is whole."""
    run = next((above for above in target.resolve().parents if (above / IDENTITY).is_file()), None)
    return None if run is None else folder_of(run.parent) / f"{digest}{_ENDING}"


def keep(written: Path, digest: str) -> Path | None:
    """Put the file of a run into the store, in place of a damaged one; its path there, None where it cannot be."""
    stored = entry(written, digest)
    if stored is None:
        return None
    draft = stored.with_name(f".{stored.name}.{os.getpid()}")
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        os.link(written, draft)
        os.replace(draft, stored)
    except OSError:  # another disk, or one that knows no links
        return None
    return stored


def sweep(runs: Path) -> list[Path]:
    """Remove the bases that no run links any more, and what a kill left of them; returns what was removed.

    Files of other names, in a folder that ``UPTURN_BASES`` names, are not touched.
    """
    gone = []
    for path in sorted(folder_of(runs).glob("*")):
        try:
            if _OURS.fullmatch(path.name) and path.stat().st_nlink == 1:
                path.unlink()
                gone.append(path)
        except FileNotFoundError:  # another process was quicker
            continue
    return gone

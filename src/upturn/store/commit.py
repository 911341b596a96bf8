"""One step of a unit, written whole or not at all: the rename of its record is the commit.

Order on the disk: files into ``<unit>/.<step>.tmp/`` and fsync; a draft of the record, fsync; each file renamed into
the unit, fsync; the draft renamed to ``<unit>/stages/<step>.json``, fsync. A kill at any point leaves either the
record, with everything it names, or no record; what such a kill leaves over is named by the draft and swept later.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from upturn.errors import RunError, UserError
from upturn.store import files
from upturn.store.crash_points import reach

STAGES = "stages"
_STEP = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True)
class Record:
    """What a step did: the truth from which the catalog can be rebuilt.

    started   UTC, ISO 8601 with microseconds
    seconds   wall time, as the caller measured it or from entry to exit
    counts    how many of what: {"samples": 4000, "dropped": 12}
    info      anything JSON can say; its keys are in docs/guides/run-directory.md
    files     name in the unit -> SHA-256 of a file, tree hash of a folder
    """

    unit: str
    step: str
    started: str
    seconds: float
    counts: Mapping[str, int]
    info: Mapping[str, Any]
    files: Mapping[str, str]


@dataclass
class Draft:
    """A step under way: write files into ``path``; fill ``info`` and ``counts`` at any time before the end.

    ``seconds`` is the wall time from entry to exit unless the caller sets it.
    """

    path: Path
    info: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    record: Record | None = None  # set when the step is committed


def record_path(folder: Path, step: str) -> Path:
    """The path of the record of a step of the unit in ``folder``."""
    return folder / STAGES / f"{step}.json"


def read_record(path: Path) -> Record:
    """A record from its file; UserError naming the file where it is damaged."""
    value = files.read_json(path)
    try:
        return Record(**value)
    except TypeError as error:
        raise UserError("this is no record of a step", where=str(path), fix="It is damaged.") from error


@contextmanager
def commit(
    folder: Path, unit: str, step: str, info: Mapping[str, Any] | None = None,
    after: Callable[[Record], None] | None = None,
) -> Iterator[Draft]:
    """Write a step of the unit in ``folder``; ``after`` is called with the record once it is on the disk.

    Raises RunError where the step is done already or names a file of another step, and for a full disk;
    UserError without permission. If the body raises, nothing of the step is left.
    """
    if not _STEP.fullmatch(step):
        raise ValueError(f"'{step}' is no name of a step")
    if record_path(folder, step).exists():
        raise RunError(f"the step '{step}' is done already", where=str(folder), fix="Nothing kept is overwritten.")
    temporary = folder / f".{step}.tmp"
    with files.disk_errors(folder):
        files.make_folder(folder / STAGES)
        sweep(folder, step)
        temporary.mkdir()
        reach("commit:begin")
        draft = Draft(temporary, dict(info or {}))
        started, clock = datetime.now(UTC).isoformat(timespec="microseconds"), time.perf_counter()
        try:
            yield draft
            reach("commit:written")
            seconds = time.perf_counter() - clock if draft.seconds is None else draft.seconds
            unfinished = Record(unit, step, started, seconds, draft.counts, draft.info, {})
            draft.record = _finish(folder, temporary, unfinished)
        except BaseException:
            sweep(folder, step)
            raise
    reach("commit:after-record")
    files.remove(temporary)
    if after is not None:
        after(draft.record)
    reach("commit:after-catalog")


def _finish(folder: Path, temporary: Path, unfinished: Record) -> Record:
    """Fsync, draft the record, move, and rename the draft: from here on the step is done."""
    names = sorted(os.listdir(temporary))
    taken = claimed(folder)
    for name in names:
        if name in taken or name == STAGES:
            raise RunError(f"the step '{taken.get(name, '')}' wrote '{name}' already", where=str(folder))
    files.sync_tree(temporary)
    hashes = {name: files.any_hash(temporary / name) for name in names}
    step = unfinished.step
    record = Record(**(files.plain(asdict(unfinished)) | {"files": hashes}))
    target, drafted = record_path(folder, step), _draft_path(folder, step)
    with open(drafted, "w", encoding="utf-8") as file:
        file.write(files.to_json(asdict(record)))
        file.flush()
        os.fsync(file.fileno())
    files.sync(drafted.parent)
    reach("commit:after-fsync")
    for name in names:
        files.remove(folder / name)
        os.rename(temporary / name, folder / name)
        reach("commit:file-moved")
    files.sync(folder)
    reach("commit:before-record")
    os.rename(drafted, target)
    files.sync(target.parent)
    return record


def _draft_path(folder: Path, step: str) -> Path:
    return folder / STAGES / f".{step}.json.tmp"


def claimed(folder: Path) -> dict[str, str]:
    """Names in a unit that belong to finished steps, with the step of each."""
    owners: dict[str, str] = {}
    for path in sorted((folder / STAGES).glob("[!.]*.json")):
        record = read_record(path)
        owners |= dict.fromkeys(record.files, record.step)
    return owners


def sweep(folder: Path, step: str | None = None) -> list[str]:
    """Remove what unfinished steps of a unit left (of one step, or of all); returns what was removed."""
    pattern = step if step is not None else "*"
    gone: list[str] = []
    drafts = list((folder / STAGES).glob(f".{pattern}.json.tmp"))
    if drafts:
        owners = claimed(folder)
    for draft in drafts:
        for name in _drafted_names(draft):
            if name not in owners and (folder / name).exists():
                files.remove(folder / name)
                gone.append(name)
        files.remove(draft)
    for temporary in folder.glob(f".{pattern}.tmp"):
        files.remove(temporary)
        gone.append(temporary.name)
    return gone


def _drafted_names(draft: Path) -> list[str]:
    try:
        return list(json.loads(draft.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError):
        return []  # cut off while it was written: nothing had been moved yet

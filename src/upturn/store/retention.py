"""Removes weights by ``keep`` and a disk budget; every removal is recorded before it happens."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from upturn.errors import UserError
from upturn.store import files
from upturn.store.commit import Record
from upturn.store.crash_points import reach
from upturn.store.promotion import REJECTED, SKIPPED, newest_promoted
from upturn.store.units import is_round, round_unit, unit_round, whole_round

DELETIONS = "deletions.jsonl"
CHECKPOINTS = "checkpoints"
WEIGHTS = ("model", CHECKPOINTS)  # what may be removed from a unit; samples, scores and metrics never are
_LAST = re.compile(r"last (\d+)")


@dataclass(frozen=True)
class Deletion:
    """Weights that were removed to save disk space: which, their hash, how many bytes, why and when (UTC)."""

    unit: str
    name: str
    hash: str
    bytes: int
    reason: str
    at: str

    def to_line(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False) + "\n"


def decision(records: Iterable[Record], unit: str) -> str | None:
    """The decision on a unit's round: "promoted", "rejected", "skipped", or None before it."""
    whole = whole_round(unit)  # a training within a round shares the fate of the round
    for record in records:
        if record.unit == whole and record.step == "gate":
            return str(record.info.get("decision"))
    return None


def _with_model(records: Iterable[Record]) -> list[str]:
    """Units of rounds with a model, in the order in which they started."""
    found = [record.unit for record in records if "model" in record.files and is_round(record.unit)]
    return list(dict.fromkeys(found))


def anchor(records: Sequence[Record]) -> str | None:
    """The last stage of round 0 with a model."""
    first = [unit for unit in _with_model(records) if unit_round(unit) == 0]
    return first[-1] if first else None


def incumbent(records: Sequence[Record]) -> str | None:
    """The last promoted round; without one, the last stage of round 0."""
    rounds = [unit for unit in _with_model(records) if unit.count("/") == 1]
    newest = newest_promoted({unit_round(unit): decision(records, unit) for unit in rounds})
    return round_unit(newest) if newest else anchor(records)


def read(folder: Path) -> list[Deletion]:
    """The deletions of a run; a last line cut off by a kill was never acted upon and does not count."""
    path = folder / DELETIONS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    whole = [line for line in lines[:-1] if line]  # a whole line ends with a newline
    try:
        return [Deletion(**json.loads(line)) for line in whole]
    except (ValueError, TypeError) as error:
        raise UserError("this file is damaged", where=str(path)) from error


def _dropped(keep: str, records: Sequence[Record], units: Sequence[str]) -> list[tuple[str, str]]:
    """(unit, why) of the units whose weights ``keep`` does not retain."""
    if keep == "all":
        return []
    if keep == "promoted":
        return [(unit, "keep: promoted") for unit in units if decision(records, unit) in (REJECTED, SKIPPED)]
    match = _LAST.fullmatch(keep)
    if match is None or int(match[1]) < 1:
        raise UserError(f"'{keep}' is not known", where="keep", fix="Write 'all', 'promoted' or 'last N'.")
    newest = sorted({unit_round(unit) for unit in units})[-int(match[1]):]
    return [(unit, f"keep: {keep}") for unit in units if unit_round(unit) not in newest]


def prune(folder: Path, records: Sequence[Record], keep: str, budget: int | None) -> list[Deletion]:
    """Remove what is not retained; the rules are in ``Run.prune``. Returns what was removed now."""
    units = sorted(_with_model(records), key=unit_round)
    open_rounds = [unit for unit in units if decision(records, unit) is None]
    free = [unit for unit in units if unit_round(unit) > 0 and unit not in {incumbent(records), *open_rounds}]
    dropped = [(unit, why) for unit, why in _dropped(keep, records, units) if unit in free]
    if budget is not None:
        left = [unit for unit in free if unit not in dict(dropped)]
        kept = [unit for unit in units if unit not in dict(dropped)]
        # rejected rounds go first, then the oldest
        out = {unit for unit in left if decision(records, unit) in (REJECTED, SKIPPED)}
        for unit in sorted(left, key=lambda unit: (unit not in out, unit_round(unit))):
            if _bytes(folder, kept) <= budget:
                break
            kept.remove(unit)
            dropped.append((unit, f"disk budget of {budget} bytes"))
    return [deletion for unit, why in dropped for deletion in _remove(folder, unit, why)]


def _bytes(folder: Path, units: Iterable[str]) -> int:
    """Of all weights of the units together; linked files (the base of adapters) count once."""
    found: dict[tuple[int, int], int] = {}
    for unit in units:
        for name in WEIGHTS:
            for item in (folder / unit / name).rglob("*"):
                if item.is_file():
                    seen = item.stat()
                    found[seen.st_dev, seen.st_ino] = seen.st_size
    return sum(found.values())


def prune_checkpoints(folder: Path, unit: str, kept: Collection[str], why: str) -> list[Deletion]:
    """Remove the checkpoints of a unit that are not named; see ``Run.prune_checkpoints``."""
    places = sorted((folder / unit / CHECKPOINTS).glob("epoch-*"))
    return [_delete(folder, unit, f"{CHECKPOINTS}/{p.name}", why) for p in places if p.name not in kept]


def _remove(folder: Path, unit: str, why: str) -> list[Deletion]:
    return [_delete(folder, unit, name, why) for name in WEIGHTS if (folder / unit / name).exists()]


def _delete(folder: Path, unit: str, name: str, why: str) -> Deletion:
    path = folder / unit / name
    at = datetime.now(UTC).isoformat(timespec="seconds")
    deletion = Deletion(unit, name, files.tree_hash(path), files.size(path), why, at)
    _append(folder / DELETIONS, deletion.to_line())
    reach("prune:recorded")
    files.remove(path)
    reach("prune:deleted")
    return deletion


def _append(path: Path, line: str) -> None:
    """Add a line and flush it; a part of a line that a kill left is cut away first."""
    old = path.read_bytes() if path.exists() else b""
    with open(path, "ab") as file:
        file.truncate(old.rfind(b"\n") + 1)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())
    files.sync(path.parent)


def finish(folder: Path) -> None:
    """Carry out deletions that were written down before a kill."""
    for deletion in read(folder):
        files.remove(folder / deletion.unit / deletion.name)

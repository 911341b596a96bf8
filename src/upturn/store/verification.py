"""Compares every file that the finished steps of a run recorded with its SHA-256."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from upturn.errors import UserError
from upturn.store import commit as commits
from upturn.store import files, retention, units
from upturn.store.commit import STAGES, Record
from upturn.store.new_run import FINGERPRINT, IDENTITY, RECIPE


@dataclass(frozen=True)
class Damage:
    """A file or folder that is not what its step wrote; ``step`` is empty for the files of the run itself."""

    path: Path
    unit: str
    step: str
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass
class Verification:
    """What was compared, and what differs.

    steps      finished steps
    files      files that were read and compared, those inside folders counted one by one
    bytes      of these files
    removed    weights that the run removed to save disk space, which are not damage
    unchecked  folders of which a part was removed on purpose: their recorded hash is that of the whole folder
    damage     one entry for each file or folder that is missing or has other bytes
    """

    steps: int = 0
    files: int = 0
    bytes: int = 0
    removed: int = 0
    unchecked: list[Path] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.damage


def verify(folder: Path) -> Verification:
    """Read every recorded file of the run in ``folder``. Nothing is written, so a run in progress can be verified."""
    found = Verification()
    for name in (IDENTITY, RECIPE, FINGERPRINT):
        if not (folder / name).is_file():
            found.damage.append(Damage(folder / name, "", "", "missing", "Restore it from a backup."))
    for path in _record_paths(folder):
        try:
            record = commits.read_record(path)
        except UserError as error:
            unit, step = path.parents[1].relative_to(folder).as_posix(), path.stem
            found.damage.append(Damage(path, unit, step, error.what, _recompute(path)))
            continue
        found.steps += 1
        for name, digest in sorted(record.files.items()):
            _compare(folder, record, name, digest, found)
    return found


def _record_paths(folder: Path) -> Iterator[Path]:
    for pattern in units.FOLDERS:
        yield from sorted(folder.glob(f"{pattern}/{STAGES}/[!.]*.json"))


def _compare(folder: Path, record: Record, name: str, digest: str, found: Verification) -> None:
    path = folder / record.unit / name
    if path.exists() and files.any_hash(path) == digest:
        found.files += sum(item.is_file() for item in path.rglob("*")) if path.is_dir() else 1
        found.bytes += files.size(path)
        return
    # read after the comparison: a run in progress writes a deletion down before it removes anything
    removed = {deletion.name for deletion in retention.read(folder) if deletion.unit == record.unit}
    if name in removed:
        found.removed += 1
    elif path.exists() and any(part.startswith(f"{name}/") for part in removed):
        found.unchecked.append(path)
    else:
        problem = "its bytes are not those that were written" if path.exists() else "missing"
        fix = _recompute(commits.record_path(folder / record.unit, record.step))
        found.damage.append(Damage(path, record.unit, record.step, problem, fix))


def _recompute(record: Path) -> str:
    return f"Restore it from a backup, or delete {record} and run the recipe again: the step is then computed again."

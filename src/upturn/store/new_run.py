"""Creates the folder of a new run under a temporary name, and links the files that a fork continues from."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from upturn.errors import UserError
from upturn.store import files
from upturn.store.commit import STAGES, Record
from upturn.store.crash_points import reach
from upturn.store.retention import DELETIONS, Deletion
from upturn.types import content_id

IDENTITY, RECIPE, FINGERPRINT = "run.json", "recipe.yaml", "fingerprint.json"


@contextmanager
def new_folder(
    folder: Path, recipe_text: str, fingerprint: Mapping[str, Any], identity: Mapping[str, Any]
) -> Iterator[Path]:
    """A temporary folder with what every run has; on leaving it gets its name, whole.

    Raises UserError where ``folder`` is not empty or cannot be created.
    """
    taken = UserError("this folder is not empty", where=str(folder), fix="Choose another name for the run.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise taken
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    with files.disk_errors(folder):
        files.make_folder(folder.parent)
        draft = folder.with_name(f".{folder.name}.new")
        files.remove(draft)
        draft.mkdir()
        try:
            name = content_id(str(folder.resolve()), created, os.getpid())
            _write(draft / IDENTITY, files.to_json({"id": name, "created": created, **identity}))
            _write(draft / RECIPE, recipe_text)
            _write(draft / FINGERPRINT, files.to_json(fingerprint))
            yield draft
            files.sync_tree(draft)
            reach("create:written")
            os.rename(draft, folder)
            files.sync(folder.parent)
        except OSError as error:
            files.remove(draft)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process was quicker
                raise taken from error
            raise
        except BaseException:
            files.remove(draft)
            raise


def take_along(source: Path, target: Path, records: Sequence[Record], deletions: Sequence[Deletion]) -> None:
    """All files of these records, and the records, as hard links (nothing kept is ever written again) or copies."""
    kept = {record.unit for record in records}
    _write(target / DELETIONS, "".join(line.to_line() for line in deletions if line.unit in kept))
    for record in records:
        for name in (f"{STAGES}/{record.step}.json", *record.files):
            _link(source / record.unit / name, target / record.unit / name)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """Nothing where the source was removed to save disk space."""
    if source.is_dir():
        for path in source.rglob("*"):
            if path.is_file():
                _link(path, target / path.relative_to(source))
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(source, target)

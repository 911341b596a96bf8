"""Helpers of sources: checked paths, and rows divided by content into Splits."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from upturn.data.split import check_leakage, split_by_content
from upturn.errors import UserError
from upturn.types import Array, Kind, Prompt, Samples, Splits, real_samples


def check_fraction(value: float) -> None:
    """Raises ValueError where a held-out fraction is not inside (0, 1)."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"held_out must lie between 0 and 1 (a share, such as 0.1), not {value}")


def _readable(path: Path, key: str) -> None:
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise UserError("no permission to read it", where=str(path), fix=f"Change its permissions, or '{key}'.")


def a_file(given: str, key: str) -> Path:
    """The file that a field names. Raises UserError where it is absent, a folder, or unreadable."""
    path = Path(given).expanduser()
    if path.is_dir():
        raise UserError("this is a folder, a file is expected", where=str(path), fix=f"Give a file as '{key}'.")
    if not path.is_file():
        raise UserError("there is no such file", where=str(path), fix=f"Give an existing file as '{key}'.")
    _readable(path, key)
    return path


def a_folder(given: str, key: str) -> Path:
    """The folder that a field names. Raises UserError where it is absent, a file, or unreadable."""
    path = Path(given).expanduser()
    if path.is_file():
        raise UserError("this is a file, a folder is expected", where=str(path), fix=f"Give a folder as '{key}'.")
    if not path.is_dir():
        raise UserError("there is no such folder", where=str(path), fix=f"Give an existing folder as '{key}'.")
    _readable(path, key)
    return path


def files(given: str, key: str) -> list[Path]:
    """The file that a field names, or all that its glob names, sorted."""
    if not glob.has_magic(given) or Path(given).expanduser().exists():
        return [a_file(given, key)]
    found = sorted(name for name in glob.glob(os.path.expanduser(given), recursive=True) if os.path.isfile(name))
    if not found:
        raise UserError("no file fits this pattern", where=given, fix=f"Fix '{key}'.")
    return [a_file(name, key) for name in found]


@dataclass(frozen=True)
class Rows:
    """Rows before they are split: ``keys`` (N,) say which are on one side together."""

    kind: Kind
    content: Array
    prompts: Sequence[Prompt]
    keys: Array
    fields: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.prompts)

    def take(self, kept: Array) -> Rows:
        """The rows where a boolean mask is true."""
        rows = np.flatnonzero(kept).tolist()
        fields = {name: column[rows] for name, column in self.fields.items()}
        return Rows(self.kind, self.content[rows], [self.prompts[row] for row in rows], self.keys[rows], fields)


def _unique(rows: Rows, source: str, part: str) -> tuple[Samples, Array, list[str]]:
    """Samples and their keys with exact repetitions (prompt and content) kept once, and a note that counts them."""
    samples = real_samples(rows.kind, rows.content, rows.prompts, source, rows.fields)
    first = np.sort(np.unique(samples.ids.astype(str), return_index=True)[1])
    dropped = len(samples) - len(first)
    notes = [f"{dropped:,} rows of {part} repeat another exactly: kept once"] if dropped else []
    return samples.take(first), rows.keys[first], notes


def divide(
    rows: Rows, fraction: float, source: str, *, classes: Sequence[str] = (), notes: Sequence[str] = (),
    chosen: Collection[str] = (),
) -> Splits:
    """Splits with about ``fraction`` of the different keys held out, and all that are ``chosen``.

    Raises UserError where a side stays empty.
    """
    samples, keys, repeated = _unique(rows, source, "the data")
    side = split_by_content(keys, fraction)
    if len(chosen):
        side |= np.isin(keys.astype(str), [str(key) for key in chosen])
    if not side.any() or side.all():
        empty = "train" if side.all() else "held-out"
        raise UserError(
            f"the {empty} part would be empty: there are {len(set(keys))} different contents in {len(samples)} rows",
            where=source, fix=f"Give more data, or change 'held_out' (it is {fraction}).",
        )
    check_leakage(keys[~side], keys[side], where=source)
    return Splits(samples.take(~side), samples.take(side), tuple(classes), (*notes, *repeated))


def with_own_test(
    train: Rows, test: Rows, source: str, *, classes: Sequence[str] = (), notes: Sequence[str] = ()
) -> Splits:
    """Splits where the data brings its own test part; what of it is in train is not held out, and counted."""
    learnt, keys, repeated = _unique(train, source, "train")
    tested, test_keys, again = _unique(test, source, "test")
    known = set(keys)
    new = np.array([key not in known for key in test_keys], dtype=bool)
    gone = int((~new).sum())
    if not len(learnt) or not new.any():
        raise UserError(
            f"nothing is left to hold out: {gone:,} of {len(tested):,} test rows are in train" if len(learnt)
            else "the train part has no rows", where=source, fix="Give another test part, or leave it out.",
        )
    leaked = [f"{gone:,} of {len(tested):,} test rows are in train: taken out of the held-out part"] if gone else []
    held_out, held_keys = tested.take(new), test_keys[new]
    check_leakage(keys, held_keys, where=source)
    return Splits(learnt, held_out, tuple(classes), (*notes, *repeated, *again, *leaked))

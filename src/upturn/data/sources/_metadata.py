"""metadata.jsonl and metadata.csv of an image folder: one row per image, ``file_name`` and further columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upturn.data.json_lines import records
from upturn.errors import UserError

FILE_NAME = "file_name"


@dataclass(frozen=True)
class Metadata:
    """``rows`` in order, ``lines`` the line of each, ``columns`` found (without ``file_name``)."""

    path: Path
    rows: list[dict[str, Any]]
    lines: list[int]
    columns: list[str]

    def where(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"

    def column(self, name: str, key: str) -> list[Any]:
        """The values of a column. Raises UserError naming the columns found where a row lacks it."""
        columns = ", ".join(self.columns) or f"only {FILE_NAME}"
        for row, found in enumerate(self.rows):
            if name not in found:
                raise UserError(
                    f"column '{name}' is expected (field '{key}'); found: {columns}",
                    where=self.where(row), fix=f"Set '{key}' to one of the columns found, or fix the line.",
                )
        return [found[name] for found in self.rows]


def read(folder: Path) -> Metadata | None:
    """The metadata of a folder, None where there is none.

    Raises UserError naming file and line: both files there, a row without ``file_name``, a broken line.
    """
    found = [path for name in ("metadata.jsonl", "metadata.csv") if (path := folder / name).is_file()]
    if not found:
        return None
    if len(found) > 1:
        raise UserError(
            "both metadata.jsonl and metadata.csv are found, one is expected", where=str(folder), fix="Remove one."
        )
    path = found[0]
    pairs = list(records(path) if path.suffix == ".jsonl" else _csv(path))
    if not pairs:
        raise UserError("the metadata has no rows", where=str(path), fix=f"Give a row with '{FILE_NAME}' an image.")
    columns = list(dict.fromkeys(name for _, row in pairs for name in row))
    for line, row in pairs:
        if not isinstance(row.get(FILE_NAME), str) or not row[FILE_NAME]:
            raise UserError(
                f"column '{FILE_NAME}' is expected; found: {', '.join(row)}", where=f"{path}, line {line}",
                fix=f"Give each row '{FILE_NAME}', the image's path from this folder.",
            )
    named = [name for name in columns if name != FILE_NAME]
    return Metadata(path, [row for _, row in pairs], [line for line, _ in pairs], named)


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"the row has not as many values as there are columns: {', '.join(reader.fieldnames or [])}",
                        where=f"{path}, line {reader.line_num}", fix="Put values that hold a comma into quotes.",
                    )
                yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise UserError(
            f"not UTF-8 near byte {error.start:,}", where=str(path), fix="Save the file as UTF-8."
        ) from error
    except csv.Error as error:
        raise UserError(
            f"not valid CSV: {error}", where=f"{path}, line {reader.line_num}", fix="Fix the quotes of that line."
        ) from error

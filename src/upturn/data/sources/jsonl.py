"""JSON lines of conversations, text, prompts with completions, or points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from upturn.data.json_lines import column, records
from upturn.data.sources._columns import OPTIONAL, Columns, Table, check_optional, joined
from upturn.data.sources._common import files
from upturn.data.sources._tables import splits
from upturn.errors import UserError
from upturn.protocols import Source
from upturn.types import Kind, Splits


@dataclass(frozen=True, kw_only=True)
class Jsonl(Columns, Source):
    """A file of JSON lines: conversations, text, prompts with completions, or points; the fields name the columns.

    Content (N,) str or (N, d) float32; see the layouts of the fields. Empty lines, CRLF and a byte-order mark are
    taken in stride.

    path  a file, or a glob
    test  the data's own test file; its rows whose content is in train are taken out and counted
    """

    path: str
    test: str | None = None

    def __post_init__(self) -> None:
        self.check_columns()

    @property
    def kind(self) -> Kind:
        return "points" if self.points else "text"

    def load(self) -> Splits:
        """Reads the lines. Raises UserError naming file and line, the columns found and the one expected."""
        found = files(self.path, "path")
        line, first = next(records(found[0]), (1, {}))
        # a row may have keys that the first has not
        spec = self.settled(list(first), f"{found[0]}, line {line}", possible=OPTIONAL) if first else self
        train = joined([_table(path, spec) for path in found])
        test = joined([_table(path, spec) for path in files(self.test, "test")]) if self.test else None
        check_optional(self, train)
        return splits(train, test, spec, f"jsonl:{found[0].stem}")


def _table(path: Path, spec: Columns) -> Table:
    wanted = spec.wanted()
    lines: list[int] = []
    columns: dict[str, list[object]] = {name: [] for name in wanted.values()}
    field_of = {name: key for key, name in wanted.items()}
    for line, found in records(path):
        lines.append(line)
        for name, values in columns.items():
            key = field_of[name]
            values.append(found.get(name) if key in OPTIONAL else column(found, name, f"{path}, line {line}", key))
    if not lines:
        raise UserError("the file has no lines", where=str(path), fix="Each line must be one JSON object.")
    return Table(columns, lambda row: f"{path}, line {lines[row]}")

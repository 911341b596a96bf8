"""The result of an export, and the README.md that documents it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upturn.store import files
from upturn.store.run import Run


@dataclass(frozen=True)
class Exported:
    """What was written where, and what was left out and why: reason -> how many."""

    folder: Path
    counts: Mapping[str, int]
    left_out: Mapping[str, int]

    def __str__(self) -> str:
        lines = [str(self.folder), *(f"  {name}: {count:,}" for name, count in self.counts.items())]
        return "\n".join(lines + [f"  left out, {reason}: {count:,}" for reason, count in self.left_out.items()])


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """JSON lines; NaN is null."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(files.plain(row), ensure_ascii=False) + "\n" for row in rows)


def write_card(
    folder: Path, run: Run, title: str, counts: Mapping[str, int], left: Mapping[str, int], notes: str, data: str | None
) -> None:
    """README.md: what is here, how many, what was left out and why; its head names the file for ``datasets``."""
    head = f"---\nconfigs:\n- config_name: default\n  data_files: {data}\n---\n\n" if data else ""
    lines = [f"# {title} of the run {run.name}", "", notes, "", "| what | how many |", "| --- | ---: |"]
    lines += [f"| {name} | {count:,} |" for name, count in counts.items()]
    lines += ["", "Left out:" if left else "Nothing was left out.", ""]
    lines += [f"- {reason}: {count:,}" for reason, count in left.items()]
    lines += ["", f"Run {run.id}, of upturn; its recipe:", "", "```yaml", run.recipe_text.rstrip(), "```", ""]
    (folder / "README.md").write_text(head + "\n".join(lines), encoding="utf-8")

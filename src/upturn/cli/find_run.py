"""Finds a run by name or folder, and a round of it that has a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.store.run import Run


def find_run(name: str, runs: Path) -> Run:
    """A run by name or folder.

    Raises UserError naming the runs that exist.
    """
    from upturn.store.run import Run

    for folder in (Path(name), runs / name):
        if (folder / "recipe.yaml").is_file():
            return Run.open(folder)
    existing = sorted(p.parent.name for p in runs.glob("*/recipe.yaml")) if runs.is_dir() else []
    raise UserError(
        f"there is no run '{name}'", where=str(runs),
        fix=f"Runs: {', '.join(existing)}." if existing
        else "'upturn run RECIPE' creates one; --runs names the folder of the runs.",
    )


def find_round(run: Run, number: int | None) -> str:
    """The unit of a round that has a model; without a number the newest promoted one."""
    from upturn.runs import status

    found = status.read(run)
    if number is None:
        return found.incumbent.unit
    with_model = {r.round: r for r in found.rounds if (run.unit(r.unit) / "model").is_dir()}
    if number not in with_model:
        raise UserError(
            f"round {number} has no model", where=str(run.folder),
            fix=f"Rounds with a model: {', '.join(str(n) for n in with_model) or 'none yet'}.",
        )
    return with_model[number].unit

"""What the commands share: where runs lie, and how numbers are printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.store.run import Run

Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds the runs.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
RUNS = Path("runs")


def open_run(name: str, runs: Path) -> Run:
    """A run by name or folder.

    Raises UserError naming the runs that there are.
    """
    from upturn.store.run import Run

    for folder in (Path(name), runs / name):
        if (folder / "recipe.yaml").is_file():
            return Run.open(folder)
    there = sorted(p.parent.name for p in runs.glob("*/recipe.yaml")) if runs.is_dir() else []
    raise UserError(
        f"there is no run '{name}'", where=str(runs),
        fix=f"There: {', '.join(there)}." if there else "'upturn run RECIPE' makes one; --runs names their folder.",
    )


def round_unit(run: Run, number: int | None) -> str:
    """The unit of a round that has a model; without a number the newest promoted one."""
    from upturn.runs import status

    seen = status.read(run)
    if number is None:
        return seen.incumbent.unit
    whole = {r.round: r for r in seen.rounds if (run.unit(r.unit) / "model").is_dir()}
    if number not in whole:
        raise UserError(
            f"round {number} has no model", where=str(run.folder),
            fix=f"Rounds with one: {', '.join(str(n) for n in whole) or 'none yet'}.",
        )
    return whole[number].unit


def figure(measured: Mapping[str, Any] | None) -> str:
    """``0.93 [0.91, 0.95]``, or a dash."""
    if measured is None or measured.get("value") is None:
        return "-"
    value = f"{measured['value']:.4g}"
    if measured.get("low") is None or measured.get("high") is None:
        return value
    return f"{value} [{measured['low']:.4g}, {measured['high']:.4g}]"

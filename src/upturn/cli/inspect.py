"""status, report, compare, trace: what there is to see."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from upturn.cli.common import RUNS, AsJson, RunName, Runs, open_run


def status(run: RunName, runs: Runs = RUNS, as_json: AsJson = False) -> None:
    """Rounds, metrics, decisions and cost of a run."""
    from upturn.cli import tables
    from upturn.runs import status as statuses

    found = open_run(run, runs)
    if as_json:
        print(json.dumps(statuses.read(found).to_json(), indent=1))
    else:
        tables.print_run(found)


def report(run: RunName, runs: Runs = RUNS) -> None:
    """Write the run's report.html again."""
    from upturn.report import write

    print(write(open_run(run, runs)))


def compare(
    a: Annotated[str, typer.Argument(help="A run's name or folder.")],
    b: Annotated[str, typer.Argument(help="Another's.")],
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Two runs side by side: what their recipes differ in, and each metric round by round."""
    from upturn.cli import tables
    from upturn.runs import status as statuses

    one, two = statuses.read(open_run(a, runs)), statuses.read(open_run(b, runs))
    found = statuses.compare(one, two)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        tables.print_comparison(found)


def trace(
    run: RunName,
    sample: Annotated[str, typer.Argument(help="A sample's id, or its beginning.")],
    down: Annotated[bool, typer.Option("--down", help="To all that was made with it (takedown).")] = False,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """A sample's ancestry, to its real roots; or down, to all that it touched."""
    from upturn.cli import tables
    from upturn.store import lineage

    found = open_run(run, runs)
    traced = lineage.trace_down(found, sample) if down else lineage.trace(found, sample)
    if as_json:
        print(json.dumps(asdict(traced), indent=1, default=_plain))
    else:
        tables.print_trace(asdict(traced))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value)  # type: ignore[call-overload]

"""upturn trace: the ancestors of a sample, or everything that was derived from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, AsJson, RunName, RunsFolder


def trace(
    run: RunName,
    sample: Annotated[str, typer.Argument(help="A sample's id, or its beginning.")],
    down: Annotated[bool, typer.Option("--down", help="Everything that was derived from it (takedown).")] = False,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """A sample's ancestors, back to real data; with --down everything that was derived from it."""
    from upturn.cli import printed_tables
    from upturn.store import lineage

    found = find_run(run, runs)
    traced = lineage.trace_down(found, sample) if down else lineage.trace(found, sample)
    if as_json:
        print(json.dumps(asdict(traced), indent=1, default=_plain))
    else:
        printed_tables.print_trace(asdict(traced))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else list(value)  # type: ignore[call-overload]

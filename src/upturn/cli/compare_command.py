"""upturn compare: two runs side by side."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, AsJson, RunsFolder


def compare(
    a: Annotated[str, typer.Argument(help="A run's name or folder.")],
    b: Annotated[str, typer.Argument(help="The other run's name or folder.")],
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Two runs side by side: the keys in which their recipes differ, and each metric round by round."""
    from upturn.cli import printed_tables
    from upturn.runs import status

    found = status.compare(status.read(find_run(a, runs)), status.read(find_run(b, runs)))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        printed_tables.print_comparison(found)

"""upturn status: rounds, metrics, decisions and cost of a run."""

from __future__ import annotations

import json

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, AsJson, RunName, RunsFolder


def status(run: RunName, runs: RunsFolder = RUNS, as_json: AsJson = False) -> None:
    """Rounds, metrics, decisions and cost of a run."""
    from upturn.cli import printed_tables
    from upturn.runs import status as statuses

    found = find_run(run, runs)
    if as_json:
        print(json.dumps(statuses.read(found).to_json(), indent=1))
    else:
        printed_tables.print_run(found)

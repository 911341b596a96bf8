"""upturn report: writes the HTML report of a run."""

from __future__ import annotations

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, RunName, RunsFolder


def report(run: RunName, runs: RunsFolder = RUNS) -> None:
    """Write the run's report.html again."""
    from upturn.report import write

    print(write(find_run(run, runs)))

"""One HTML file about a run, made from its folder alone, at any time: running, failed or done."""

from __future__ import annotations

from pathlib import Path

from upturn.store import files
from upturn.store.run import Run

FILE = "report.html"


def write(run: Run) -> Path:
    """Write ``report.html`` into the run's folder, whole or not at all, and return its path.

    It needs nothing beside itself: no script, style, font or picture comes from elsewhere, and its content policy
    forbids it. Raises UserError where the run's recipe cannot be read or the folder cannot be written.
    """
    from upturn.report.page import render

    path = run.folder / FILE
    page = render(run)
    with files.disk_errors(path):
        files.write_text(path, page)
    return path


def write_study(folder: Path) -> Path:
    """Write ``study.html`` into the folder of a study, whole or not at all, and return its path.

    Raises UserError where the study has no results.
    """
    from upturn.report.study import write as write_page

    return write_page(folder)


def write_lab(folder: Path) -> Path:
    """Write ``lab.html`` into the folder of an experiment, whole or not at all, and return its path.

    Raises UserError where the experiment has no results.
    """
    from upturn.report.lab import write as write_page

    return write_page(folder)

"""HTML reports of a run, a study or an experiment, written from its directory alone, at any time."""

from __future__ import annotations

from pathlib import Path

from upturn.store import files
from upturn.store.run import Run

FILE = "report.html"


def write(run: Run) -> Path:
    """Write ``report.html`` into the run directory, whole or not at all, and return its path.

    The file loads no script, style, font or image from elsewhere, and its content security policy forbids it. Raises
    UserError if the run's recipe cannot be read or the directory cannot be written.
    """
    from upturn.report.page import render

    path = run.folder / FILE
    page = render(run)
    with files.disk_errors(path):
        files.write_text(path, page)
    return path


def write_study(folder: Path) -> Path:
    """Write ``study.html`` into the directory of a study, whole or not at all, and return its path.

    Raises UserError if the study has no results.
    """
    from upturn.report.study_page import write as write_page

    return write_page(folder)


def write_lab(folder: Path) -> Path:
    """Write ``lab.html`` into the directory of an experiment, whole or not at all, and return its path.

    Raises UserError if the experiment has no results.
    """
    from upturn.report.lab_page import write as write_page

    return write_page(folder)

"""The command line: parses, calls and prints. Heavy imports happen only when a command runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from upturn.cli import several_processes
from upturn.cli.captions_command import captions
from upturn.cli.compare_command import compare
from upturn.cli.data_command import data
from upturn.cli.estimate_command import estimate
from upturn.cli.export_command import export
from upturn.cli.lab_command import app as lab_app
from upturn.cli.list_command import list_components
from upturn.cli.new_command import new
from upturn.cli.plan_command import plan
from upturn.cli.report_command import report
from upturn.cli.run_command import run
from upturn.cli.sample_command import sample
from upturn.cli.search_command import search
from upturn.cli.serve_command import serve
from upturn.cli.status_command import status
from upturn.cli.study_command import study
from upturn.cli.trace_command import trace
from upturn.cli.verify_command import verify
from upturn.errors import UserError

app = typer.Typer(
    help="Train generative models in rounds, and keep only the rounds that make them better.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)
for _command in (
    new, data, plan, captions, run, study, status, report, compare, estimate, trace, verify, sample, export, serve,
    search,
):
    app.command(_command.__name__)(_command)
app.command("list")(list_components)
app.add_typer(lab_app, name="lab")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"upturn {version('upturn')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Train generative models in rounds, and keep only the rounds that make them better."""


def main() -> None:
    """Exit codes: 0 done, 1 a run failed, 2 bad input, 3 waiting for votes; errors are one message, no traceback."""
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # a recipe may name its own components; at the end, so that no file here hides a package
    several_processes.end_with_the_launcher()
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped. The same command resumes from the last finished step.", 1)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        _fail(_unexpected(error), 1)


def _fail(message: str, code: int) -> NoReturn:
    """Print the message and exit; one of several processes gives it to the process that started them."""
    if not several_processes.report(message, code):
        print(f"upturn: {message}", file=sys.stderr)
    sys.exit(code)


def _unexpected(error: Exception) -> str:
    """The message for an error in upturn itself; the traceback goes to a file that the message names."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="upturn-", suffix=".log", delete=False, encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    return (
        f"internal error ({type(error).__name__}: {error}). Every finished step is kept. "
        f"The traceback is in {log.name}; please send it with your recipe."
    )

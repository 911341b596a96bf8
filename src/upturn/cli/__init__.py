"""The command line: thin. Parse, call, print. Heavy imports wait until a command runs."""

from __future__ import annotations

import sys

import typer

from upturn.cli import captions, estimate, export, inspect, lab, list, run, search, serve, study
from upturn.errors import UserError

app = typer.Typer(
    help="Train generative models in rounds, and keep only the rounds that make them better.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
)
app.command("new")(run.new)
app.command("plan")(run.plan)
app.command("captions")(captions.captions)
app.command("run")(run.run)
app.command("study")(study.study)
app.command("status")(inspect.status)
app.command("report")(inspect.report)
app.command("compare")(inspect.compare)
app.command("estimate")(estimate.estimate)
app.command("trace")(inspect.trace)
app.command("sample")(export.sample)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("search")(search.search)
app.command("list")(list.show)
app.add_typer(lab.app, name="lab")


def main() -> None:
    """Exit 0 done, 1 a run failed, 2 bad input, 3 waiting; one message, no traceback."""
    try:
        app()
    except UserError as error:
        print(f"upturn: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("upturn: stopped. The same command goes on from what was finished.", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        print(f"upturn: {_unexpected(error)}", file=sys.stderr)
        sys.exit(1)


def _unexpected(error: Exception) -> str:
    """A fault of ours: the details go to a file, and the person is told where."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="upturn-", suffix=".log", delete=False, encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    return (
        f"something went wrong that should not have ({type(error).__name__}: {error}). All that was finished is kept. "
        f"The details are in {log.name}; please send them with your recipe."
    )

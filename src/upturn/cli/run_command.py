"""upturn run: runs a recipe, or resumes its run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, RunsFolder, Settings
from upturn.errors import RunError, UserError

if TYPE_CHECKING:
    from upturn.config.recipe import Recipe
    from upturn.observer import Observer
    from upturn.store.run import Run


def run(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A YAML file.")] = None,
    settings: Settings = [],
    name: Annotated[str | None, typer.Option("--name", help="The run's name. Default: the recipe's name.")] = None,
    runs: RunsFolder = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as JSON lines.")] = False,
    source: Annotated[str | None, typer.Option("--from", metavar="RUN", help="Fork another run.")] = None,
    after: Annotated[int | None, typer.Option("--round", help="With --from: continue after this round.")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="The recipe's simulated annotators vote.")] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Train in several, each on its device.")] = 1,
) -> None:
    """Run a recipe; run it again to resume from the last finished step."""
    from upturn.cli import several_processes

    if processes > 1 and simulate:
        raise UserError("--simulate and --processes do not go together", fix="Leave one of them out.")
    if processes > 1 and not several_processes.started():
        _recipe(recipe, settings, name, _fork(source, after, runs))  # a mistake in it needs no processes
        with _interrupts_reported():
            code = several_processes.launch(processes, sys.argv[1:])
        raise typer.Exit(code)
    from upturn.cli import printed_tables, progress_display
    from upturn.loop import loop
    from upturn.report import write

    fork = _fork(source, after, runs)
    configured = _recipe(recipe, settings, name, fork)
    observer = progress_display.observer_for(as_json)
    try:
        with _interrupts_reported():
            run_all = _simulated if simulate else loop.run
            done = run_all(configured, runs, observer, fork)
    finally:
        progress_display.close(observer)
    if not loop.is_first_process():
        return
    state, message = done.state.state, done.state.message
    page = write(done)
    if as_json:
        print(json.dumps({"event": state, "run": str(done.folder), "report": str(page), "missing": message}))
    else:
        printed_tables.print_run(done)
        print(f"\nReport: {page}")
    if state == "waiting":
        print(message)
        raise typer.Exit(3)


@contextmanager
def _interrupts_reported() -> Iterator[None]:
    """An interrupt is a run that failed, with a message; the command-line library has another exit code for it."""
    try:
        yield
    except KeyboardInterrupt:
        raise RunError("stopped", fix="The same command resumes from the last finished step.") from None


def _fork(source: str | None, after: int | None, runs: Path) -> tuple[Path, int] | None:
    """The folder of the run that is forked, and the round to continue after."""
    if (source is None) != (after is None):
        raise UserError("--from and --round go together", fix="Name the run and the round to continue after.")
    return None if source is None or after is None else (find_run(source, runs).folder, after)


def _recipe(path: Path | None, settings: list[str], name: str | None, fork: tuple[Path, int] | None) -> Recipe:
    """The recipe of the new run: a file, or that of the run that is forked."""
    from upturn.config import recipe as recipes

    if path is None and fork is None:
        raise UserError("name a recipe", fix="'upturn new' writes one to start from.")
    found = recipes.load(path if path is not None else fork[0] / "recipe.yaml", settings)  # type: ignore[index]
    if name is not None:
        return recipes.renamed(found, name)
    if fork is not None and path is None:
        return recipes.renamed(found, f"{found.name}-from-{fork[1]}")
    return found


def _simulated(configured: Recipe, runs: Path, observer: Observer, fork: tuple[Path, int] | None) -> Run:
    from upturn.web import installed

    installed()
    from upturn.web.simulated_run import run_through

    return run_through(configured, runs, observer, fork)

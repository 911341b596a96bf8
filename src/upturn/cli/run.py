"""new, plan, run: what spends something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upturn.cli.common import RUNS, AsJson, Runs, open_run
from upturn.errors import UserError

if TYPE_CHECKING:
    from upturn.config.recipe import Recipe
    from upturn.observer import Watch
    from upturn.store.run import Run

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Change one key of the recipe.")]
Name = Annotated[str | None, typer.Option("--name", help="The run's name; the recipe's own otherwise.")]


def new(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    kind: Annotated[str, typer.Option("--for", help="images, text or points.")] = "images",
) -> None:
    """Write a commented recipe to start from."""
    from upturn.config.templates import STARTERS

    if kind not in STARTERS:
        raise UserError(f"there is no starter for '{kind}'", where="--for", fix=f"One of: {', '.join(STARTERS)}.")
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(STARTERS[kind])
    except FileExistsError:
        raise UserError("the file exists", where=str(path), fix="Name another one.") from None
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(path)) from None
    print(f"{path} is yours to change. Next: upturn plan {path}")


def plan(
    recipe: RecipePath, settings: Settings = [], as_json: AsJson = False,
) -> None:
    """What a recipe will cost, and where theory says it ends, before anything is spent."""
    from upturn import plan as planning
    from upturn.config import recipe as recipes

    found = planning.plan(recipes.load(recipe, settings))
    print(json.dumps(found.to_json(), indent=1) if as_json else found.text())


def run(
    recipe: Annotated[Path | None, typer.Argument(metavar="RECIPE", help="A YAML file.")] = None,
    settings: Settings = [],
    name: Name = None,
    runs: Runs = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Events as JSON lines.")] = False,
    source: Annotated[str | None, typer.Option("--from", metavar="RUN", help="Fork another run.")] = None,
    after: Annotated[int | None, typer.Option("--round", help="With --from: go on after this round.")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="The recipe's simulated people vote.")] = False,
) -> None:
    """Run a recipe; run it again and it goes on from what was finished."""
    from upturn.cli import progress, tables
    from upturn.config import recipe as recipes
    from upturn.loop import loop

    if (source is None) != (after is None):
        raise UserError("--from and --round go together", fix="Name the run and the round to go on after.")
    fork = None if source is None or after is None else (open_run(source, runs).folder, after)
    if recipe is None and fork is None:
        raise UserError("name a recipe", fix="'upturn new' writes one to start from.")
    asked = recipes.load(recipe if recipe is not None else fork[0] / "recipe.yaml", settings)  # type: ignore[index]
    if name is not None:
        asked = recipes.renamed(asked, name)
    elif fork is not None and recipe is None:
        asked = recipes.renamed(asked, f"{asked.name}-from-{after}")
    watch = progress.watch_for(as_json)
    try:
        done = _simulated(asked, runs, watch, fork) if simulate else loop.run(asked, runs, watch, fork)
    finally:
        progress.close(watch)
    if not loop.is_first_process():
        return
    state, message = done.state.state, done.state.message
    from upturn.report import write

    page = write(done)
    if as_json:
        print(json.dumps({"event": state, "run": str(done.folder), "report": str(page), "missing": message}))
    else:
        tables.print_run(done)
        print(f"\nReport: {page}")
    if state == "waiting":
        print(message)
        raise typer.Exit(3)


def _simulated(asked: Recipe, runs: Path, watch: Watch, fork: tuple[Path, int] | None) -> Run:
    from upturn.web import installed

    installed()
    from upturn.web.simulated_run import run_through

    return run_through(asked, runs, watch, fork)

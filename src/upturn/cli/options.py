"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")
RunsFolder = Annotated[Path, typer.Option("--runs", help="The folder that holds the runs.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file.")]
Settings = Annotated[list[str], typer.Option("--set", metavar="a.b=c", help="Change one key of the recipe.")]

"""upturn export: samples, votes, preferences, model or adapters of a run, in the formats of other tools."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, RunName, RunsFolder
from upturn.errors import UserError


def export(
    run: RunName,
    what: Annotated[str, typer.Option("--what", help="samples, votes, preferences, model or adapters.")],
    form: Annotated[str | None, typer.Option("--format", help="Of adapters: peft, diffusers, kohya.")] = None,
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path("export"),
    runs: RunsFolder = RUNS,
) -> None:
    """A run's samples, votes, preferences, model or adapters in the formats of other tools."""
    from upturn.export import model_export
    from upturn.export import run_export as exports

    if form is not None and what != "adapters":
        raise UserError(f"'{what}' has one format", where="--format", fix="It is for '--what adapters'.")
    adapters_only = partial(model_export.write_adapters, form=cast(model_export.Format, form or "peft"))
    write = adapters_only if what == "adapters" else model_export.write
    done = exports.export(find_run(run, runs), cast(exports.What, what), to, write)
    print(f"{done.folder}: {', '.join(f'{count} {name}' for name, count in done.counts.items())}")
    for why, count in done.left_out.items():
        print(f"left out: {count}, {why}")

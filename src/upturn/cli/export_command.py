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
    form: Annotated[str | None, typer.Option("--format", help="Of adapters: peft, lora, diffusers, kohya.")] = None,
    adapters: Annotated[
        list[str], typer.Option("--adapter", help="Which adapters: a name or a folder, or either with =WEIGHT.")
    ] = [],
    combine: Annotated[
        str | None, typer.Option("--combine", help="One of several: cat (the weighted sum), svd, ties, dare_ties, …")
    ] = None,
    density: Annotated[float | None, typer.Option("--density", help="The share that ties, dare, … keep.")] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Ranks of a layer at most; of dylora the first.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Which model, by its name in the recipe.")] = None,
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path("export"),
    runs: RunsFolder = RUNS,
) -> None:
    """A run's samples, votes, preferences, model or adapters in the formats of other tools."""
    from upturn.export import model_export
    from upturn.export import run_export as exports

    if form is not None and what != "adapters":
        raise UserError(f"'{what}' has one format", where="--format", fix="It is for '--what adapters'.")
    chosen = model_export.Chosen(tuple(adapters), combine, density, rank)
    if chosen != model_export.Chosen() and what not in ("adapters", "model"):
        raise UserError(f"'{what}' has no adapters", where="--what", fix="They are of 'adapters' and 'model'.")
    if model is not None and what != "model":
        raise UserError(f"'{what}' is of the policy", where="--model", fix="It is for '--what model'.")
    form = form or ("lora" if chosen.changes else "peft")
    only_adapters = partial(model_export.write_adapters, form=cast(model_export.Format, form), chosen=chosen, to=to)
    write = only_adapters if what == "adapters" else partial(model_export.write, chosen=chosen)
    done = exports.export(find_run(run, runs), cast(exports.What, what), to, write, model)
    print(f"{done.folder}: {', '.join(f'{count} {name}' for name, count in done.counts.items())}")
    for why, count in done.left_out.items():
        print(f"left out: {count}, {why}")

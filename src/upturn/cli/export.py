"""sample, export: what is taken out of a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from upturn.cli.common import RUNS, RunName, Runs, open_run, round_unit
from upturn.errors import UserError

To = Annotated[Path, typer.Option("--to", help="The folder to write to.")]


def sample(
    run: RunName,
    number: Annotated[int | None, typer.Option("--round", help="The newest promoted round otherwise.")] = None,
    prompt: Annotated[list[str], typer.Option("--prompt", help="A text, or the name of a class.")] = [],
    n: Annotated[int, typer.Option("--n", min=1, help="Candidates a prompt.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    settings: Annotated[
        list[str], typer.Option("--set", help="A sampling setting, e.g. guidance=2 or 'guide=round 0'.")
    ] = [],
    to: To = Path("samples"),
    runs: Runs = RUNS,
) -> None:
    """New samples from a round's model, as files."""
    from upturn.runs import sample as sampling

    found = open_run(run, runs)
    files = sampling.to_files(found, round_unit(found, number), prompt, n, seed, to, settings)
    print("\n".join(str(path) for path in files))


def export(
    run: RunName,
    what: Annotated[str, typer.Option("--what", help="samples, votes, preferences, model or adapters.")],
    form: Annotated[str | None, typer.Option("--format", help="Of adapters: peft, diffusers, kohya.")] = None,
    to: To = Path("export"),
    runs: Runs = RUNS,
) -> None:
    """A run's samples, votes, preferences, model or adapters in the formats that others read."""
    from upturn.export import run as exports
    from upturn.export import weights

    if form is not None and what != "adapters":
        raise UserError(f"'{what}' has one format", where="--format", fix="It is for '--what adapters'.")
    alone = partial(weights.write_adapters, form=cast(weights.Format, form or "peft"))
    write = alone if what == "adapters" else weights.write
    done = exports.export(open_run(run, runs), cast(exports.What, what), to, write)
    print(f"{done.folder}: {', '.join(f'{count} {name}' for name, count in done.counts.items())}")
    for why, count in done.left_out.items():
        print(f"left out: {count}, {why}")

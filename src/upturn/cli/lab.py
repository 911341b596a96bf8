"""lab: theory against simulation."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from upturn.cli.common import AsJson

app = typer.Typer(help="Theory against simulation, many replicas at once.", no_args_is_help=True)


@app.callback()
def lab() -> None:
    """Theory against simulation, many replicas at once."""


@app.command("gaussian")
def gaussian(
    n: Annotated[int, typer.Option("--n", help="Samples a round.")] = 100,
    rounds: Annotated[int, typer.Option("--rounds")] = 100,
    replicas: Annotated[int, typer.Option("--replicas")] = 10_000,
    policy: Annotated[str, typer.Option("--policy", help="replace or accumulate.")] = "replace",
    dim: Annotated[int, typer.Option("--dim")] = 1,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    as_json: AsJson = False,
) -> None:
    """One Gaussian, fitted again and again to its own samples."""
    from upturn.cli import tables
    from upturn.studies import gaussian as study

    result = study.run(n=n, rounds=rounds, replicas=replicas, policy=policy, dim=dim, seed=seed)
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        tables.print_rows(study.table(result))
        word = "agree" if result["agree"] else "do not agree"
        print(f"Theory and simulation {word}: largest |z| {result['largest_z']:.2f}, bound {result['bound']:g}.")

"""upturn sample: new samples from a round's model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upturn.cli.find_run import find_round, find_run
from upturn.cli.options import RUNS, RunName, RunsFolder


def sample(
    run: RunName,
    number: Annotated[int | None, typer.Option("--round", help="Default: the newest promoted round.")] = None,
    prompt: Annotated[list[str], typer.Option("--prompt", help="A text, or the name of a class.")] = [],
    n: Annotated[int, typer.Option("--n", min=1, help="Candidates per prompt.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    settings: Annotated[
        list[str], typer.Option("--set", help="A sampling setting, e.g. guidance=2 or 'guide=round 0'.")
    ] = [],
    adapters: Annotated[
        list[str], typer.Option("--adapter", help="Of text: base, or names or folders joined by +; once, or by prompt.")
    ] = [],
    to: Annotated[Path, typer.Option("--to", help="The folder to write to.")] = Path("samples"),
    runs: RunsFolder = RUNS,
) -> None:
    """New samples from a round's model, as files."""
    from upturn.runs import new_samples as sampling

    found = find_run(run, runs)
    files = sampling.to_files(found, find_round(found, number), prompt, n, seed, to, settings, adapters)
    print("\n".join(str(path) for path in files))

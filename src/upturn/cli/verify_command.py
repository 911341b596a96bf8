"""upturn verify: compares every file of a run with its recorded hash."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, AsJson, RunName, RunsFolder


def verify(run: RunName, runs: RunsFolder = RUNS, as_json: AsJson = False) -> None:
    """Compare every file of a run with the hash that was recorded when it was written. Exit code 1: damage."""
    found_run = find_run(run, runs)
    found = found_run.verify()
    if as_json:
        shown = {"run": str(found_run.folder), "intact": found.intact, **asdict(found)}
        print(json.dumps(shown, indent=1, default=str))
    else:
        print(f"{found_run.folder}: {found.steps} steps, {found.files} files ({found.bytes / 1e6:,.1f} MB) compared")
        if found_run.holder() is not None:
            print("The run is in progress: the step that it computes now is not compared.")
        if found.removed:
            print(f"removed on purpose: {found.removed}, to save disk space ('keep:' in the recipe)")
        for path in found.unchecked:
            print(f"not compared: {path}, because a part of it was removed on purpose")
        for damage in found.damage:
            print(f"damaged: {damage}. {damage.fix}")
        print("Every file has its recorded hash." if found.intact else f"{len(found.damage)} damaged.")
    if not found.intact:
        raise typer.Exit(1)

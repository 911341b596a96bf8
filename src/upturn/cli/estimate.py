"""estimate: what a run did, in the symbols of the theory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from upturn.cli.common import RUNS, AsJson, RunName, Runs, open_run


def estimate(
    run: RunName,
    twin: Annotated[str | None, typer.Option("--twin", metavar="RUN", help="A run started elsewhere.")] = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Effective K and λ, selection strength and (with a twin) the contraction of a run, with intervals."""
    from upturn.cli import tables
    from upturn.studies.estimate import estimate as estimated

    found = estimated(open_run(run, runs), open_run(twin, runs) if twin is not None else None)
    if as_json:
        print(json.dumps(_plain(found), indent=1))
        return
    rows = [["of", "estimate", "value", "95% interval"]]
    for number, named in found["rounds"].items():
        rows += [_row(f"round {number}", name, one) for name, one in named.items()]
    rows += [_row("the run", name, found[name]) for name in ("effective_lambda", "contraction") if name in found]
    tables.print_rows(rows)


def _row(of: str, name: str, one: Mapping[str, Any]) -> list[str]:
    if math.isnan(one["value"]):
        return [of, name.replace("_", " "), "-", str(one["note"])]
    return [of, name.replace("_", " "), f"{one['value']:.4g}", f"{one['low']:.4g} to {one['high']:.4g}"]


def _plain(found: Any) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    return None if isinstance(found, float) and not math.isfinite(found) else found

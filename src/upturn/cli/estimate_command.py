"""estimate: what a run did, in the symbols of the theory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from upturn.cli.find_run import find_run
from upturn.cli.options import RUNS, AsJson, RunName, RunsFolder

_CURVED = {"least": "least curvature", "greatest": "greatest curvature", "slope": "slope foreseen"}


def estimate(
    run: RunName,
    twin: Annotated[str | None, typer.Option("--twin", metavar="RUN", help="A run started elsewhere.")] = None,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Effective K and λ, selection strength, curvature and (with a twin) contraction of a run, with intervals."""
    from upturn.cli import printed_tables
    from upturn.studies.loop_estimates import estimate as estimated

    found = estimated(find_run(run, runs), find_run(twin, runs) if twin is not None else None)
    if as_json:
        print(json.dumps(_plain(found), indent=1))
        return
    rows = [["of", "estimate", "value", "95% interval"]]
    for number, named in found["rounds"].items():
        rows += [_row(f"round {number}", name, one) for name, one in named.items()]
    rows += [_row("the run", name, found[name]) for name in ("effective_lambda", "contraction") if name in found]
    curved = found["curvature"]
    if not curved["note"]:
        rows += [_row("round 0", title, curved[name]) for name, title in _CURVED.items()]
    printed_tables.print_rows(rows)
    print(_curvature(curved))


def _curvature(found: Mapping[str, Any]) -> str:
    """What the eigenvalues are of, and what they mean for the loop."""
    if found["note"]:
        return f"Local curvature: not told, as {found['note']}."
    exact = "" if found["likelihood"] == "exact" else f" (a {found['likelihood']}, not a likelihood)"
    unused = f", of which {found['unused']} change nothing and are left out" if found["unused"] else ""
    what = (
        f"Curvature: eigenvalues of the Hessian of the mean -log p{exact} on {found['samples']} real training samples, "
        f"at round 0's weights; {found['parameters']} parameters{unused}."
    )
    if found["likelihood"] != "exact":
        return what
    least = found["least"]
    if least["low"] > 0:
        return (
            f"{what}\nThe least is α, above 0: near these weights uncurated rounds with real data come together at any "
            "λ, by the slope a round. The published condition λ < α/(2Lε) asks for L and ε, which a run does not show; "
            "near the optimum it is not needed (docs/theory.md)."
        )
    sign = "below 0" if least["high"] < 0 else "not above 0 beyond chance"
    return f"{what}\nThe least is {sign}: no strict optimum, so α and the theory's condition say nothing here."


def _row(of: str, name: str, one: Mapping[str, Any]) -> list[str]:
    if math.isnan(one["value"]):
        return [of, name.replace("_", " "), "-", str(one["note"])]
    return [of, name.replace("_", " "), f"{one['value']:.4g}", f"{one['low']:.4g} to {one['high']:.4g}"]


def _plain(found: object) -> Any:
    """JSON has no nan and no infinity."""
    if isinstance(found, dict):
        return {name: _plain(value) for name, value in found.items()}
    return None if isinstance(found, float) and not math.isfinite(found) else found

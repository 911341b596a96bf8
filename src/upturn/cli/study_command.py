"""study: many runs that differ in what is said, compared in one table and on one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from upturn.cli.options import AsJson, Settings


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's YAML, or a recipe with several captions.")],
    settings: Settings = [],
    folder: Annotated[Path, typer.Option("--studies", help="The folder that holds the studies.")] = Path("studies"),
    only: Annotated[
        list[str], typer.Option("--only", metavar="VARIANT", help="Some of its variants; the others another time.")
    ] = [],
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it will cost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train every variant of a study and compare them; run it again and it goes on from what was finished."""
    from upturn import report
    from upturn.cli import printed_tables, progress_display
    from upturn.errors import RunError
    from upturn.studies import cost, study_runner
    from upturn.studies import study_definition as studies
    from upturn.studies.study_results import RESULTS

    wanted = studies.load(file, settings)
    if only:
        wanted = wanted.only(only)
    if plan:
        estimated = cost.estimate(wanted)
        if as_json:
            print(json.dumps(estimated, indent=1))
        else:
            printed_tables.print_rows(_planned(estimated))
        return
    observer = progress_display.observer_for(as_json)
    failure: RunError | None = None
    try:
        study_runner.conduct(wanted, folder, observer, after=report.write)
    except RunError as error:
        failure = error
    finally:
        progress_display.close(observer)
    there = folder / wanted.name
    found = json.loads((there / RESULTS).read_text(encoding="utf-8"))
    page = report.write_study(there)
    if as_json:
        print(json.dumps({"event": "failed" if failure else "done", "study": str(there), "page": str(page)}))
    else:
        printed_tables.print_rows(_table(found))
        print(f"\nPage: {page}")
    if failure is not None:
        raise failure


def _planned(found: dict[str, Any]) -> list[list[str]]:
    def row(name: str, costs: dict[str, Any]) -> list[str]:
        return [
            name, str(costs["runs"]), f"{costs['training_seconds']:,.0f} s", f"{costs['seconds']:,.0f} s",
            f"{costs['usd']:.2f}", f"{costs['disk_bytes'] / 1e6:,.1f} MB",
        ]

    head = ["variant", "runs", "training", "in all", "USD", "disk"]
    return [head, *[row(costs["variant"], costs) for costs in found["variants"]], row("in all", found["total"])]


def _table(found: dict[str, Any]) -> list[list[str]]:
    """Metric by variant; what is worse than the best beyond chance is marked."""
    from upturn.cli.printed_tables import figure

    variants = found["variants"]
    rows = [["metric", *[variant["name"] for variant in variants]]]
    sign = {"best": " best", "worse": " worse"}
    for metric in found["metrics"]:
        name, mark = metric["name"], metric["marks"]
        rows.append([name, *[figure(v["metrics"].get(name)) + sign.get(mark.get(v["name"], ""), "") for v in variants]])
    rows.append(["training", *[f"{v['cost']['training_seconds']:.0f} s" for v in variants]])
    rows.append(["cost, USD", *[f"{v['cost']['usd']:.4f}" for v in variants]])
    return rows

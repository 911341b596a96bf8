"""Tables that commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from upturn.store.run import Run

_MOST_METRICS = 6  # columns that fit beside each other; the report and --json have all


def figure(measured: Mapping[str, Any] | None) -> str:
    """``0.93 [0.91, 0.95]``, or a dash."""
    if measured is None or measured.get("value") is None:
        return "-"
    value = f"{measured['value']:.4g}"
    if measured.get("low") is None or measured.get("high") is None:
        return value
    return f"{value} [{measured['low']:.4g}, {measured['high']:.4g}]"


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # a log file has no width: tables there are as wide as they need
    return console if console.is_terminal else Console(width=160)


def print_run(run: Run) -> None:
    """One row a round: decision, metrics with intervals, real fraction, seconds; of a model without rounds one line."""
    from rich.table import Table

    from upturn.runs import status

    seen = status.read(run)
    if "policy" not in seen.recipe.models:
        from upturn.report.facts import Facts
        from upturn.report.sections.run_verdict import verdict

        # a reward model or a classifier alone has no rounds
        print(f"{seen.run}: {seen.state}. {verdict(Facts(run)).lead}")
        return
    names = list(seen.rounds[0].metrics)[:_MOST_METRICS] or seen.recipe.metric_names()[:_MOST_METRICS]
    table = Table(title=f"{seen.run}: {seen.state}{f' ({seen.message})' if seen.message else ''}")
    for column in ("round", "decision", *names, "real", "seconds"):
        table.add_column(column, overflow="fold")
    for stage in seen.rounds[0].stages:
        row = [figure(stage.metrics.get(name)) for name in names]
        table.add_row(stage.name, stage.state, *row, _share(stage.real_fraction), _sum(stage.seconds))
    for r in seen.rounds[1:]:
        decision = str(r.gate["decision"]) if r.gate else r.state
        row = [figure(r.metrics.get(name)) for name in names]
        table.add_row(str(r.round), decision, *row, _share(r.real_fraction), _sum(r.seconds))
    console = _console()
    console.print(table)
    for r in seen.rounds[1:]:
        if r.gate:
            console.print(f"round {r.round}: {r.gate['decision']}: {r.gate['reason']}", markup=False, highlight=False)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _sum(seconds: Mapping[str, float]) -> str:
    return f"{sum(seconds.values()):.1f}"


def print_comparison(found: Mapping[str, Any]) -> None:
    """What ``status.compare`` found."""
    from rich.table import Table

    console = _console()
    a, b = found["runs"]
    if found["recipe"]:
        console.print(f"Recipes, {a} -> {b}:", markup=False)
        for line in found["recipe"]:
            console.print(f"  {line}", markup=False, highlight=False)
    table = Table()
    for column in ("round", "metric", a, b, "apart"):
        table.add_column(column, overflow="fold")
    for row in found["metrics"]:
        table.add_row(str(row["round"]), row["metric"], figure(row["a"]), figure(row["b"]), row["apart"])
    console.print(table)


def print_trace(found: Mapping[str, Any]) -> None:
    """A trace as an indented list; long lists of ids by their number and first few."""
    console = _console()
    _print_tree(console, found, 0)


def _print_tree(console: Console, value: Mapping[str, Any], depth: int) -> None:
    pad = "  " * depth
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            console.print(f"{pad}{name}:", markup=False, highlight=False)
            _print_tree(console, inner, depth + 1)
        elif isinstance(inner, (list, tuple)) and inner and isinstance(inner[0], Mapping):
            console.print(f"{pad}{name}:", markup=False, highlight=False)
            for entry in inner:
                line = ", ".join(f"{k} {v}" for k, v in entry.items() if not isinstance(v, (list, tuple, dict)))
                console.print(f"{pad}  - {line}", markup=False, highlight=False)
        elif isinstance(inner, (list, tuple)):
            shown = ", ".join(str(x) for x in inner[:5])
            more = f", … ({len(inner)} in all)" if len(inner) > 5 else ""
            console.print(f"{pad}{name}: {shown}{more}", markup=False, highlight=False)
        else:
            console.print(f"{pad}{name}: {inner}", markup=False, highlight=False)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """A table whose first row is its head."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0])
    for row in rows[1:]:
        table.add_row(*map(Text, row))  # brackets are brackets
    _console().print(table)

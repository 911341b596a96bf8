"""lab: theory against simulation. Each experiment is a command; its settings are the command's options."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from upturn.cli.options import AsJson

_MOST_CHECKS = 40  # rows of a printed table; the page and the Parquet file have all
_KIND = "experiment"
To = Annotated[Path | None, typer.Option("--to", help="The folder to write into; labs/EXPERIMENT otherwise.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes; as many as help where it is not said.")]


class Experiments(Mapping[str, Any]):
    """The commands of ``lab`` by name: made from the experiments when one is asked for, so that starting is light."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        from upturn.config import components

        return iter(components.names(_KIND))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            if name not in list(self) and ":" not in name:
                raise KeyError(name)
            self._made[name] = _command(name)
        return self._made[name]


class Lab(TyperGroup):
    """A group whose commands are the experiments there are; your own stand beside them as "package.module:Class"."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands = Experiments()  # type: ignore[assignment]


app = typer.Typer(help="Theory against simulation, many replicas at once.", no_args_is_help=True, cls=Lab)


@app.callback()
def lab() -> None:
    """Theory against simulation, many replicas at once.

    Each experiment writes a table (Parquet) and one page (HTML) into a folder; run again, it goes on from what was
    finished. A setting that takes several values spans a grid: give them with commas, --lam 0,0.5,inf.
    """


def _command(name: str) -> Any:
    """The command of an experiment: an option for each field, with what the field says of itself."""
    from upturn.config import components

    cls = components.find(_KIND, name, "lab")
    hints = get_type_hints(cls)
    lists = {item.name for item in _fields(cls) if get_origin(hints[item.name]) is list}
    inner = typer.Typer(add_completion=False, rich_markup_mode=None)
    inner.command(name, help=_help(cls))(_with_options(cls, lambda given, to, workers, as_json: _run(
        name, {key: value.split(",") if key in lists else value for key, value in given.items()}, to, workers, as_json,
    )))
    command = typer.main.get_command(inner)
    command.name = name
    return command


def _fields(cls: type[Any]) -> list[Any]:
    import dataclasses

    return [item for item in dataclasses.fields(cls) if item.init]


def _help(cls: type[Any]) -> str:
    """The docstring, and the question that the page begins with."""
    return f"{inspect.getdoc(cls)}\n\n{cls.question}"


def _with_options(cls: type[Any], then: Callable[..., None]) -> Callable[..., None]:
    """A function whose signature has an option for each field of ``cls``, as typer reads it."""
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.Parameter(item.name, kind, default=None, annotation=_option(item)) for item in _fields(cls)]
    further = {"to": (To, None), "workers": (Workers, None), "as_json": (AsJson, False)}
    options += [inspect.Parameter(key, kind, default=value, annotation=hint) for key, (hint, value) in further.items()]

    def call(to: Path | None, workers: int | None, as_json: bool, **settings: str | None) -> None:
        then({key: value for key, value in settings.items() if value is not None}, to, workers, as_json)

    call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in options}
    return call


def _option(item: Any) -> Any:
    about = item.metadata.get("about", "")
    default = item.default_factory() if callable(item.default_factory) else item.default
    usual = ",".join(map(_text, default)) if isinstance(default, list) else _text(default)
    words = f"{about} ({usual})" if usual else about
    several = "A,B,…" if isinstance(default, list) else "VALUE"
    return Annotated[
        str | None,
        typer.Option(f"--{item.name.replace('_', '-')}", help=words, metavar=several, show_default=False),
    ]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _run(name: str, settings: dict[str, Any], to: Path | None, workers: int | None, as_json: bool) -> None:
    from upturn import report
    from upturn.cli import printed_tables, progress_display
    from upturn.lab import experiment_runner
    from upturn.observer import Observer

    folder = to or Path("labs") / name.rpartition(":")[2]
    observer = Observer() if as_json else progress_display.Lines()
    found = experiment_runner.conduct(name, settings, folder, observer, workers)
    page = report.write_lab(folder)
    if as_json:
        print(json.dumps({**found, "page": str(page)}, indent=1))
        return
    if len(found["checks"]) <= _MOST_CHECKS:
        printed_tables.print_rows(_checks(found))
    printed_tables.print_rows(_verdict(found))
    for sentence in found["sentences"]:
        print(sentence)
    word = "agree" if found["agree"] else "do not agree"
    print(
        f"Theory and simulation {word}: {found['tested']} checks, largest |z| {found['largest_z']:.2f}, bound "
        f"{found['bound']:g}.\nPage: {page}"
    )


def _checks(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Quantity by quantity, round by round, cell by cell."""
    cell = [key for key in found["grid"] if any(key in row for row in found["checks"])]
    order = {name: i for i, name in enumerate(dict.fromkeys(row["quantity"] for row in found["checks"]))}
    rows = sorted(found["checks"], key=lambda row: order[row["quantity"]])
    head = (*cell, "quantity", "round", "theory", "simulation", "standard error", "z", "agrees")
    return [head] + [
        (
            *(str(row[key]) for key in cell), row["quantity"], f"{row['round']:g}", _number(row["theory"]),
            _number(row["simulation"]), _number(row["standard_error"], 2),
            "" if row["z"] is None else f"{row['z']:+.2f}", _agreement(row),
        )
        for row in rows
    ]


def _agreement(row: Mapping[str, Any]) -> str:
    if row["agrees"] is not None:
        return "yes" if row["agrees"] else "NO"
    return "not tested: rare replicas carry the mean" if row["formula"] else ""


def _number(value: object, digits: int = 6) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.{digits}g}"


def _verdict(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [("formula", "what it says", "checks", "failed", "largest |z|", "holds")] + [
        (
            row["formula"], row["text"], str(row["tested"]), str(row["failed"]),
            "exact" if row["exact"] == row["tested"] else f"{row['largest_z']:.2f}",
            "yes" if row["agrees"] else "NO",
        )
        for row in found["verdict"]
    ]

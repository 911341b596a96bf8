"""The page of a lab experiment: theory over measurement, and the result for each formula."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from upturn.errors import UserError
from upturn.report import point_clouds, theory_chart
from upturn.report import titles as words
from upturn.report.cards import Card
from upturn.report.jinja import page_template, resource
from upturn.report.theory_chart import Dot, TheorySeries
from upturn.store import files
from upturn.store.columns import read_table
from upturn.types import Array

FILE, RESULTS, TABLE, CLOUDS = "lab.html", "results.json", "table.parquet", "clouds.parquet"
_NORMAL = 1.96  # standard errors of a 95% interval
_MOST_ROWS = 300  # of the table of measurements; the Parquet file has all
_FALSE_ALARM = 6.3e-5  # probability that a check of a true formula is off by more than 4 standard errors, normal
_SYMBOLS = {"lam": "λ", "candidates": "K", "dim": "dimensions", "n": "n", "top_p": "top-p", "temperature": "τ"}
_PLAIN = frozenset({"policy", "reward", "part", "shape", "inputs", "family", "data", "model"})  # no name before them


@dataclass(frozen=True)
class Figures:
    """Cards under one legend: the panels of one chart under its title, or several charts of one panel each."""

    title: str
    about: str
    legend: tuple[tuple[int, str], ...]
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class CloudTable:
    """Clouds by row and column; ``panels`` row by row, None for an empty panel."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Markup | None, ...]], ...]
    definitions: Markup


def write(folder: Path) -> Path:
    """Write ``lab.html`` into an experiment's folder and return its path. UserError if it has no results."""
    if not (folder / RESULTS).is_file():
        raise UserError(
            "there are no results of an experiment here", where=str(folder), fix="Run 'upturn lab EXPERIMENT' first.",
        )
    found = files.read_json(folder / RESULTS)
    table: list[dict[str, Any]] = read_table(folder / TABLE).to_pylist()
    path = folder / FILE
    with files.disk_errors(path):
        files.write_text(path, page_template("lab_page.html.j2").render(_context(found, table, folder)))
    return path


def _context(found: Mapping[str, Any], table: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, Any]:
    bounds = {v["formula"] for v in found["verdict"] if v["kind"] != "equal"}
    drawn = [_figures(chart, table, bounds, found["varied"]) for chart in found["charts"]]
    # an experiment without points has no table of clouds
    tables = _cloud_tables(read_table(folder / CLOUDS).to_pydict()) if (folder / CLOUDS).is_file() else []
    return {
        "found": found, "lead": _lead(found), "clouds": tables, "verdict": [_check_row(v) for v in found["verdict"]],
        "figures": _grouped([f for f in drawn if f is not None]),
        "settings": [(_name(key), _setting(value)) for key, value in found["settings"].items()],
        "rows": _rows(found, table[:_MOST_ROWS]), "left_out": max(len(table) - _MOST_ROWS, 0), "words": words,
        "chance": 1 - (1 - _FALSE_ALARM) ** found["tested"], "style": resource("report.css"),
    }


def _lead(found: Mapping[str, Any]) -> str:
    tested = [v for v in found["verdict"] if v["tested"]]
    wrong = [v["text"] for v in tested if not v["agrees"]]
    if not tested:
        return "Measured only: no formula covers these settings."
    checks = f"{words.plural(found['tested'], 'check')}, largest |z| {found['largest_z']:.2f} of {found['bound']:g}"
    if wrong:
        every = words.plural(len(tested), "formula")
        return f"The simulation contradicts {len(wrong)} of {every}: {words.listed(wrong)}."
    every = "The formula holds" if len(tested) == 1 else f"All {len(tested)} formulas hold"
    return f"{every}: {checks}."


def _name(key: str) -> str:
    return _SYMBOLS.get(key, key.replace("_", " "))


def _value(value: object) -> str:
    if value == "inf" or (isinstance(value, float) and math.isinf(value)):
        return "∞"
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _setting(value: object) -> str:
    return ", ".join(_value(v) for v in value) if isinstance(value, list) else _value(value)


def _labelled(key: str, value: object) -> str:
    """``λ = 0.5``; values that are names have no prefix."""
    return _value(value) if key in _PLAIN else f"{_name(key)} = {_value(value)}"


def _same(a: object, b: object) -> bool:
    """Whether a setting of results.json equals one of the table: JSON stores infinity as text."""
    return bool(a == b) or _value(a) == _value(b)


def _figures(
    chart: Mapping[str, Any], table: Sequence[Mapping[str, Any]], bounds: set[str], grid: Sequence[str]
) -> Figures | None:
    rows = [
        row for row in table
        if row["quantity"] == chart["quantity"] and all(_same(row.get(k), v) for k, v in chart["where"].items())
    ]
    if chart["x"] != "round" and rows:
        at = chart["at"] if chart["at"] is not None else max(row["round"] for row in rows)
        rows = [row for row in rows if row["round"] == at]
    own_axes = {chart["x"], chart["series"], *chart["panels"]}
    keys = [*chart["panels"], *(key for key in grid if key not in own_axes)]  # other cells do not share a line
    varied = [key for key in keys if len({_value(row.get(key)) for row in rows}) > 1]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(_labelled(key, row[key]) for key in varied), []).append(row)
    every = list(dict.fromkeys(_value(row[chart["series"]]) for row in rows)) if chart["series"] else [""]
    cards = []
    for place, own in groups.items():
        figure = _figure(chart, own, every, bounds)
        if figure is not None:
            cards.append(Card(_distinct(place, list(groups)) or chart["title"], "", "", figure))
    legend = tuple((i, _labelled(chart["series"], name)) for i, name in enumerate(every)) if len(every) > 1 else ()
    return Figures(chart["title"], chart["about"], legend, tuple(cards)) if cards else None


def _distinct(place: tuple[str, ...], every: Sequence[tuple[str, ...]]) -> str:
    """The parts of a panel's name that distinguish it from others; always the first."""
    def alone(i: int) -> bool:
        rest = [other[:i] + other[i + 1 :] for other in every]
        return rest.count(place[:i] + place[i + 1 :]) == 1

    return ", ".join(part for i, part in enumerate(place) if i == 0 or not alone(i))


def _grouped(figures: Sequence[Figures]) -> list[Figures]:
    """Consecutive charts of one panel with one legend share a row of cards."""
    out: list[Figures] = []
    for one in figures:
        lone = [Card(one.title, one.about, "", card.figure) for card in one.cards[:1]]
        if len(one.cards) > 1:
            out.append(one)
        elif out and not out[-1].title and out[-1].legend == one.legend:
            out[-1] = Figures("", "", one.legend, (*out[-1].cards, *lone))
        else:
            out.append(Figures("", "", one.legend, tuple(lone)))
    return out


def _figure(
    chart: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], every: Sequence[str], bounds: set[str]
) -> Markup | None:
    x = chart["x"]
    values = list(dict.fromkeys(_value(row[x]) for row in rows))
    named = any(not isinstance(row[x], int | float) or math.isinf(row[x]) for row in rows)
    series = []
    for colour, name in enumerate(every):
        own = [row for row in rows if not chart["series"] or _value(row[chart["series"]]) == name]
        if not own:
            continue
        places = [float(values.index(_value(row[x]))) if named else float(row[x]) for row in own]
        dots = [_dot(at, row) for at, row in zip(places, own, strict=True) if row["simulation"] is not None]
        theory = [(at, row["theory"]) for at, row in zip(places, own, strict=True) if row["theory"] is not None]
        bound = any(row["formula"] in bounds for row in own)
        series.append(TheorySeries(
            _labelled(chart["series"], name) if chart["series"] else chart["title"], colour,
            tuple(sorted(dots, key=lambda d: d.x)), tuple(sorted(theory)), bound, chart["joined"],
        ))
    labels = [(float(i), value) for i, value in enumerate(values)] if named else []
    return theory_chart.figure(
        chart["title"], series, log_x="x" in chart["log"] and not named, log_y="y" in chart["log"], names=labels
    )


def _dot(at: float, row: Mapping[str, Any]) -> Dot:
    value, error = row["simulation"], row["standard_error"]
    wrong = row["agrees"] is False
    if not error:
        return Dot(at, value, wrong=wrong)
    return Dot(at, value, value - _NORMAL * error, value + _NORMAL * error, wrong)


def _check_row(result: Mapping[str, Any]) -> dict[str, Any]:
    worst = result["worst"]
    place = "" if worst is None else ", ".join(
        [f"{worst['quantity']}, round {worst['round']:g}"]
        + [_labelled(k, v) for k, v in worst.items() if k not in ("quantity", "round") and v is not None]
    )
    only_exact = result["exact"] == result["tested"]
    return {**result, "place": place, "score": "exact" if only_exact else f"{result['largest_z']:.2f}"}


def _rows(found: Mapping[str, Any], table: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], Mapping[str, Any]]]:
    return [([_value(row.get(key)) for key in found["grid"]], row) for row in table]


def _cloud_tables(clouds: Mapping[str, Sequence[Any]]) -> list[CloudTable]:
    """From the columns of the table: picture, row, column, x, y."""
    import numpy as np

    titles = np.array(clouds["picture"], dtype=object)
    rows, columns = (np.array(clouds[key], dtype=object) for key in ("row", "column"))
    places = np.stack([np.array(clouds[key], dtype=np.float64) for key in ("x", "y")], axis=1)
    return [
        _cloud_table(number, title, rows[own], columns[own], places[own])
        for number, title in enumerate(dict.fromkeys(titles.tolist())) for own in [titles == title]
    ]


def _cloud_table(number: int, title: str, rows: Array, columns: Array, places: Array) -> CloudTable:
    """Points without a row are the real ones, drawn behind every panel."""
    real = places[rows == ""]
    view = point_clouds.Projection.of(real if len(real) else places)
    heads, names = list(dict.fromkeys(columns.tolist())), [r for r in dict.fromkeys(rows.tolist()) if r]
    heads = [head for head in heads if (rows[columns == head] != "").any()]
    background = f"p{number}-real"
    definitions = [view.cloud(real, background)]
    table = []
    for i, name in enumerate(names):
        panels: list[Markup | None] = []
        for j, head in enumerate(heads):
            own = places[(rows == name) & (columns == head)]
            mark = f"p{number}-{i}-{j}"
            definitions.append(view.cloud(own, mark))
            label = f"{name}, {head}: {len(own)} points"
            panels.append(point_clouds.panel(view, background, mark, label) if len(own) else None)
        table.append((name, tuple(panels)))
    return CloudTable(title, tuple(heads), tuple(table), point_clouds.definitions(definitions))

"""The page of a study: the same prompts and seeds across its variants, and what can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upturn.errors import UserError
from upturn.report import arms, epochs, page, pictures, rounds, samples, titles
from upturn.report.facts import DATA, Facts
from upturn.report.rounds import Card
from upturn.store import files
from upturn.store.run import Run
from upturn.types import Array, Samples

FILE, RESULTS = "study.html", "results.json"
_CHECKPOINTS, _ROWS = 12, 8  # columns and prompts of a variant's grid of checkpoints
_PAIRS = 6
_SHORT = 12  # characters of a row's label that need no column of their own width
_WIDE = 10  # pictures in a row of an animation's frame


@dataclass(frozen=True)
class Arm:
    """A variant: its first run, opened for reading, and what its models made of the grid."""

    name: str
    said: Mapping[str, Any]
    facts: Facts
    grid: Samples | None


@dataclass(frozen=True)
class Row:
    label: str
    tags: tuple[str, ...]
    cells: tuple[str, ...]  # data URIs, "" where a variant has none
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """A variant's checkpoints: one row a prompt, one column an epoch."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[Row, ...]
    sentences: tuple[str, ...]
    frames: tuple[str, ...]  # the whole grid at each checkpoint
    width: int  # pixels of a frame on the page, at most


def write(folder: Path) -> Path:
    """Write ``study.html`` into a study's folder and return its path. UserError where the study has no results."""
    if not (folder / RESULTS).is_file():
        raise UserError("there are no results of a study here", where=str(folder), fix="'upturn study' makes them.")
    found = files.read_json(folder / RESULTS)
    path = folder / FILE
    with files.disk_errors(path):
        files.write_text(path, page.template("study.html.j2").render(_context(found, folder)))
    return path


def _context(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    every = [_arm(said, folder) for said in found["variants"]]
    script = page.resource("report.js")
    shown = [arm for arm in every if arm.grid is not None and arm.grid.kind in ("image", "text")]
    return {
        "name": found["name"], "about": found["about"], "found": found, "variants": every, "lead": lead(found),
        "cards": _cards(found), "table": _table(found), "costs": _costs(found, every), "differences": _apart(found),
        "heads": [arm.name for arm in shown], "rows": _rows(found, shown), "wordings": _wordings(found, shown),
        "short": all(len(label) <= _SHORT for arm in shown for label, _ in _prompts(arm)),
        "wide": max([_per_prompt(arm.grid) for arm in shown], default=1), "crisp": _crisp(shown),
        "series": [s for arm in shown if (s := _series(found, arm)) is not None],
        "by_epoch": _by_epoch(found, every),
        "legend": [(i % 10, arm.name) for i, arm in enumerate(every) if _trained(arm) is not None],
        "plateaus": _plateaus(every), "pairs": _pairs(every), "words": titles,
        "script": script, "style": page.resource("report.css"), "script_hash": page.hash_of(script),
    }


def _arm(said: Mapping[str, Any], folder: Path) -> Arm:
    facts = Facts(Run.open(folder / said["runs"][0]))
    unit = facts.status.incumbent.unit
    return Arm(said["name"], said, facts, facts.samples(unit, "grid.parquet"))


def _term(metric: Mapping[str, Any]) -> titles.Term:
    return titles.term(metric["name"], {"name": metric["component"]})


def lead(found: Mapping[str, Any]) -> str:
    """What the first metric with a better side says, in a sentence."""
    for metric in found["metrics"]:
        name, marks = metric["name"], metric["marks"]
        best = next((v for v, mark in marks.items() if mark == "best"), None)
        if best is None:
            continue
        values = {v["name"]: v["metrics"].get(name) for v in found["variants"]}
        worse = [v for v, mark in marks.items() if mark == "worse"]
        alike = [v for v, mark in marks.items() if mark == "alike"]
        text = f"{_term(metric).title}: {best} is best with {titles.interval(values[best])}; beyond chance it beats "
        text += titles.listed([f"{v} ({titles.interval(values[v])})" for v in worse])
        return f"{text}, but not {titles.listed(alike)}." if alike else f"{text}."
    return "No variant can be told from the others." if len(found["variants"]) > 1 else "One variant, by epoch."


def _cards(found: Mapping[str, Any]) -> list[Card]:
    cards = []
    for metric in found["metrics"]:
        name, term = metric["name"], _term(metric)
        values = {v["name"]: v["metrics"].get(name, {}) for v in found["variants"]}
        figure = arms.by_variant(term.title, values, metric["marks"])
        if figure is not None:
            direction = {"higher": "higher is better", "lower": "lower is better", "neither": ""}[metric["better"]]
            notes = sorted({str(m["note"]) for m in values.values() if m.get("note")})
            cards.append(Card(term.title, term.meaning, direction, figure, tuple(notes)))
    return cards


def _table(found: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Metric -> (value, interval, mark) of each variant."""
    rows = []
    for metric in found["metrics"]:
        cells = []
        for v in found["variants"]:
            value, _, ends = titles.interval(v["metrics"].get(metric["name"])).partition(" ")
            cells.append((value, ends, metric["marks"].get(v["name"], "")))
        rows.append((_term(metric).title, cells))
    return rows


def _costs(found: Mapping[str, Any], every: Sequence[Arm]) -> list[tuple[str, list[str]]]:
    costs = [v["cost"] for v in found["variants"]]
    several = len(found["seeds"]) > 1
    rows = [
        ("training" + (" (mean of seeds)" if several else ""), [titles.duration(c["training_seconds"]) for c in costs]),
        ("samples a second", [titles.number(c["samples_per_second"] or None) for c in costs]),
        ("with measuring and helpers", [titles.duration(c["seconds"]) for c in costs]),
    ]
    if any(c["usd"] for c in costs):
        rows.append(("price of training", [titles.usd(c["training_usd"]) for c in costs]))
        rows.append(("price in all", [titles.usd(c["usd"]) for c in costs]))
    return rows


def _apart(found: Mapping[str, Any]) -> list[tuple[str, str, str, str, str, bool]]:
    """(metric, a, b, difference, p, differs), those that differ first."""
    rows = []
    for metric in found["metrics"]:
        for d in found["differences"][metric["name"]]:
            said = titles.interval(d) if d["how"] != "surrogate" else "not comparable: surrogate likelihoods"
            rows.append((_term(metric).title, d["a"], d["b"], said, titles.number(d["p"]), bool(d["differs"])))
    return rows


def _per_prompt(grid: Samples | None) -> int:
    return 1 if grid is None or not len(grid) else int(np.bincount(grid.group).max())


def _crisp(shown: Sequence[Arm]) -> bool:
    return all(pictures.crisp(arm.grid.content) for arm in shown if arm.grid is not None and arm.grid.kind == "image")


def _prompts(arm: Arm) -> dict[tuple[str, int], Array]:
    """(text, occurrence) -> rows of the grid."""
    found: dict[tuple[str, int], Array] = {}
    grid = arm.grid
    assert grid is not None
    classes = tuple(str(name) for name in arm.facts.info(DATA, "load").get("classes", ()))
    for place, group in enumerate(np.unique(grid.group).tolist()):
        rows = np.flatnonzero(grid.group == group)
        label = samples.prompt_label(grid.prompts[rows[0]], classes, place)
        times = sum(text == label for text, _ in found)
        found[label, times] = rows
    return found


def _cell(arm: Arm, rows: Array | None) -> str:
    grid = arm.grid
    if rows is None or grid is None or grid.kind != "image":
        return ""
    return pictures.strip(grid.content[rows])


def _tags(found: Mapping[str, Any], label: str) -> tuple[str, ...]:
    said = found["prompts"].get(label, {})
    out = []
    if said.get("held_out"):
        out.append(f"held out of training: {said['held_out']}")
    if said.get("unseen"):
        out.append(f"in no training caption: {', '.join(said['unseen'])}")
    return tuple(out)


def _rows(found: Mapping[str, Any], shown: Sequence[Arm]) -> list[Row]:
    """Prompts down, variants across; wordings of one prompt stand in a section of their own."""
    asked = [_prompts(arm) for arm in shown]
    places = dict.fromkeys(place for own in asked for place in own)
    worded = {text for group in found["wordings"] for text in group}
    first = {text for texts in found["wordings"] for text in texts[:1]}
    rows = []
    for label, times in places:
        if label in worded and (times > 0 or label not in first):
            continue
        own = [prompts.get((label, times)) for prompts in asked]
        texts = tuple(
            "" if at is None or arm.grid is None or arm.grid.kind != "text" else str(arm.grid.content[at[0]])
            for arm, at in zip(shown, own, strict=True)
        )
        cells = tuple(_cell(arm, at) for arm, at in zip(shown, own, strict=True))
        rows.append(Row(label, _tags(found, label), cells, texts))
    return rows


def _wordings(found: Mapping[str, Any], shown: Sequence[Arm]) -> list[list[Row]]:
    out = []
    for number, group in enumerate(found["wordings"]):
        rows = []
        for place, text in enumerate(group):
            cells, notes = [], []
            for arm in shown:
                cells.append(_cell(arm, _worded(arm, group, text)))
                ratio = found["wording_effects"][arm.name][number][place]["ratio"]
                notes.append("" if ratio is None or place == 0 else f"moved {titles.number(ratio, 2)}")
            rows.append(Row(titles.visible(text) or "(empty)", _tags(found, text), tuple(cells), notes=tuple(notes)))
        out.append(rows)
    return out


def _worded(arm: Arm, group: Sequence[str], text: str) -> Array | None:
    """Rows of a wording that have the noise of the group's first."""
    grid = arm.grid
    assert grid is not None
    wanted: Array | None = None
    for asked in (group[0], text):
        at = np.array([row for row, prompt in enumerate(grid.prompts) if prompt.text == asked], dtype=np.int64)
        sets = [at[grid.group[at] == number] for number in np.unique(grid.group[at])]
        keys = None if wanted is None else grid.fields["key"][wanted]
        wanted = next((own for own in sets if keys is None or np.array_equal(grid.fields["key"][own], keys)), None)
        if wanted is None:
            return None
    return wanted


def _trained(arm: Arm) -> tuple[str, str] | None:
    """The last training of the variant that has checkpoints: title and unit."""
    having = [t for t in arm.facts.trainings if arm.facts.path(t.unit, epochs.FILE) is not None]
    return (having[-1].title, having[-1].unit) if having else None


def _series(found: Mapping[str, Any], arm: Arm) -> Series | None:
    trained = _trained(arm)
    if trained is None or arm.grid is None or arm.grid.kind != "image":
        return None
    _, unit = trained
    said = files.read_json(arm.facts.run.unit(unit) / epochs.FILE)["epochs"]
    grids = []
    for row in said:
        folder = arm.facts.run.unit(unit) / f"epoch-{int(row['epoch']):04d}"
        listed = row["epoch"] == int(row["epoch"]) and folder.is_dir()
        name = f"{folder.name}/grid.parquet" if listed else "grid.parquet"
        made = arm.facts.samples(unit, name)
        if made is not None:
            grids.append((f"{row['epoch']:g}", made))
    if len(grids) > _CHECKPOINTS:
        grids = [grids[i] for i in np.unique(np.linspace(0, len(grids) - 1, _CHECKPOINTS).round().astype(int))]
    rows = []
    for (label, _), at in list(_prompts(arm).items())[:_ROWS]:
        cells = tuple(pictures.strip(made.content[at[:1]]) for _, made in grids)
        rows.append(Row(label, _tags(found, label), cells))
    told = epochs.progress(arm.facts, arm.name, unit)
    wide = min(len(np.unique(arm.grid.group)), _WIDE)
    frames = tuple(pictures.sheet(made.content[samples.in_blocks(made, wide)], wide) for _, made in grids)
    heads = tuple(f"epoch {e}" for e, _ in grids)
    return Series(arm.name, heads, tuple(rows), told.sentences if told else (), frames, 66 * wide)


def _by_epoch(found: Mapping[str, Any], every: Sequence[Arm]) -> list[Card]:
    """One figure a metric, one line a variant."""
    read = []
    for place, arm in enumerate(every):
        trained = _trained(arm)
        if trained is not None:
            path = arm.facts.run.unit(trained[1]) / epochs.FILE
            read.append((arm.name, place, files.read_json(path)["epochs"]))
    cards = []
    for metric in found["metrics"]:
        name, term = metric["name"], _term(metric)
        lines = [
            arms.Series(arm, place, tuple(
                (row["epoch"], m["value"], m["low"], m["high"]) for row in rows
                if (m := row["metrics"].get(name)) is not None and m["value"] is not None
            ))
            for arm, place, rows in read
        ]
        figure = arms.by_epoch(term.title, lines)
        if figure is not None:
            direction = {"higher": "higher is better", "lower": "lower is better", "neither": ""}[metric["better"]]
            cards.append(Card(term.title, term.meaning, direction, figure))
    return cards


def _plateaus(every: Sequence[Arm]) -> list[tuple[str, ...]]:
    """(variant, metric, plateau, its value, price to there, last, price to the last, moved, flipped)."""
    rows: list[tuple[str, ...]] = []
    for arm in every:
        trained = _trained(arm)
        if trained is None:
            continue
        said = files.read_json(arm.facts.run.unit(trained[1]) / epochs.FILE)
        name, spent = said["headline"], epochs.cost(arm.facts, trained[1])
        if name is None:
            continue
        at, last = said["plateau"][name]["plateau"], said["epochs"][-1]["epoch"]
        value = next(row["metrics"][name] for row in said["epochs"] if row["epoch"] == at)
        steady = (said["consistency"] or [None])[-1]
        rows.append((
            arm.name, titles.term(name, arm.facts.specs.get(name)).title, f"{at:g}", titles.interval(value),
            spent.until(at) if spent else "–", f"{last:g}", spent.until(last) if spent else "–",
            titles.number(steady["ratio"], 2) if steady else "–", titles.share(steady["flipped"]) if steady else "–",
        ))
    return rows


def _pairs(every: Sequence[Arm]) -> list[tuple[str, list[Any]]]:
    """Of each variant, the pictures that come closest to a training picture, each beside it."""
    out = []
    for arm in every:
        _, pairs = rounds.nearest_pairs(arm.facts)
        if pairs:
            out.append((arm.name, pairs[:_PAIRS]))
    return out

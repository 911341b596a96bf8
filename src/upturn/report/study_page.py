"""The page of a study: the same prompts and seeds across its variants, and which differ beyond chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from upturn.errors import UserError
from upturn.report import epochs, image_data, titles, variant_charts
from upturn.report.cards import Card, direction
from upturn.report.examples import prompt_label
from upturn.report.facts import DATA, Facts
from upturn.report.jinja import page_template, resource, script_hash
from upturn.report.nearest import nearest_pairs
from upturn.store import files
from upturn.store.run import Run
from upturn.types import Array, Samples

FILE, RESULTS = "study.html", "results.json"
_CHECKPOINTS, _ROWS = 12, 8  # columns and prompts of a variant's grid of checkpoints
_PAIRS = 6
_SHORT = 12  # characters of a row's label that need no column of their own width


@dataclass(frozen=True)
class StudyVariant:
    """A variant: its results, its first run, opened for reading, and the grid of its model."""

    name: str
    results: Mapping[str, Any]
    facts: Facts
    grid: Samples | None


@dataclass(frozen=True)
class PromptRow:
    """One prompt across variants or checkpoints."""

    label: str
    tags: tuple[str, ...]
    cells: tuple[str, ...]  # data URIs, "" for a variant that has none
    texts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointGrid:
    """A variant's checkpoints: one row for each prompt, one column for each epoch."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[PromptRow, ...]
    sentences: tuple[str, ...]
    frames: tuple[str, ...]  # the whole grid at each checkpoint
    width: int  # pixels of a frame on the page, at most


def write(folder: Path) -> Path:
    """Write ``study.html`` into a study's folder and return its path. UserError where the study has no results."""
    if not (folder / RESULTS).is_file():
        raise UserError("there are no results of a study here", where=str(folder), fix="Run 'upturn study' first.")
    found = files.read_json(folder / RESULTS)
    path = folder / FILE
    with files.disk_errors(path):
        files.write_text(path, page_template("study_page.html.j2").render(_context(found, folder)))
    return path


def _context(found: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    every = [_variant(results, folder) for results in found["variants"]]
    script = resource("report.js")
    displayed = [variant for variant in every if variant.grid is not None and variant.grid.kind in ("image", "text")]
    return {
        "name": found["name"], "about": found["about"], "found": found, "variants": every, "lead": lead(found),
        "cards": _cards(found), "table": _table(found), "costs": _costs(found, every), "differences": _apart(found),
        "heads": [variant.name for variant in displayed], "rows": _rows(found, displayed),
        "wordings": _wordings(found, displayed),
        "short": all(len(label) <= _SHORT for variant in displayed for label, _ in _prompts(variant)),
        "wide": max([_per_prompt(variant.grid) for variant in displayed], default=1), "crisp": _crisp(displayed),
        "series": [s for variant in displayed if (s := _series(found, variant)) is not None],
        "by_epoch": _by_epoch(found, every),
        "legend": [(i % 10, variant.name) for i, variant in enumerate(every) if _trained(variant) is not None],
        "plateaus": _plateaus(every), "pairs": _pairs(every), "words": titles,
        "script": script, "style": resource("report.css"), "script_hash": script_hash(script),
    }


def _variant(results: Mapping[str, Any], folder: Path) -> StudyVariant:
    facts = Facts(Run.open(folder / results["runs"][0]))
    unit = facts.status.incumbent.unit
    return StudyVariant(results["name"], results, facts, facts.samples(unit, "grid.parquet"))


def _term(metric: Mapping[str, Any]) -> titles.Term:
    return titles.term(metric["name"], {"name": metric["component"]})


def lead(found: Mapping[str, Any]) -> str:
    """The result on the first metric that has a best variant, in a sentence."""
    for metric in found["metrics"]:
        name, marks = metric["name"], metric["marks"]
        best = next((v for v, mark in marks.items() if mark == "best"), None)
        if best is None:
            continue
        values = {v["name"]: v["metrics"].get(name) for v in found["variants"]}
        worse = [v for v, mark in marks.items() if mark == "worse"]
        undecided = [v for v, mark in marks.items() if mark == "alike"]
        text = f"{_term(metric).title}: {best} is best with {titles.interval(values[best])}; beyond chance it beats "
        text += titles.listed([f"{v} ({titles.interval(values[v])})" for v in worse])
        return f"{text}, but not {titles.listed(undecided)}." if undecided else f"{text}."
    several = len(found["variants"]) > 1
    return "No variant is better than the others beyond chance." if several else "One variant, by epoch."


def _cards(found: Mapping[str, Any]) -> list[Card]:
    cards = []
    for metric in found["metrics"]:
        name, term = metric["name"], _term(metric)
        values = {v["name"]: v["metrics"].get(name, {}) for v in found["variants"]}
        figure = variant_charts.by_variant(term.title, values, metric["marks"])
        if figure is not None:
            notes = sorted({str(m["note"]) for m in values.values() if m.get("note")})
            cards.append(Card(term.title, term.meaning, direction(metric["better"]), figure, tuple(notes)))
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


def _costs(found: Mapping[str, Any], every: Sequence[StudyVariant]) -> list[tuple[str, list[str]]]:
    costs = [v["cost"] for v in found["variants"]]
    several = len(found["seeds"]) > 1
    rows = [
        ("training" + (" (mean of seeds)" if several else ""), [titles.duration(c["training_seconds"]) for c in costs]),
        ("samples a second", [titles.number(c["samples_per_second"] or None) for c in costs]),
        ("with evaluation and helper models", [titles.duration(c["seconds"]) for c in costs]),
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
            value = titles.interval(d) if d["how"] != "surrogate" else "not comparable: surrogate likelihoods"
            rows.append((_term(metric).title, d["a"], d["b"], value, titles.number(d["p"]), bool(d["differs"])))
    return rows


def _per_prompt(grid: Samples | None) -> int:
    return 1 if grid is None or not len(grid) else int(np.bincount(grid.group).max())


def _crisp(displayed: Sequence[StudyVariant]) -> bool:
    grids = [variant.grid for variant in displayed if variant.grid is not None and variant.grid.kind == "image"]
    return all(image_data.crisp(grid.content) for grid in grids)


def _prompts(variant: StudyVariant) -> dict[tuple[str, int], Array]:
    """(text, occurrence) -> rows of the grid."""
    found: dict[tuple[str, int], Array] = {}
    grid = variant.grid
    assert grid is not None
    classes = tuple(str(name) for name in variant.facts.info(DATA, "load").get("classes", ()))
    for place, group in enumerate(np.unique(grid.group).tolist()):
        rows = np.flatnonzero(grid.group == group)
        label = prompt_label(grid.prompts[rows[0]], classes, place)
        times = sum(text == label for text, _ in found)
        found[label, times] = rows
    return found


def _cell(variant: StudyVariant, rows: Array | None) -> str:
    grid = variant.grid
    if rows is None or grid is None or grid.kind != "image":
        return ""
    return image_data.strip(grid.content[rows])


def _tags(found: Mapping[str, Any], label: str) -> tuple[str, ...]:
    prompt = found["prompts"].get(label, {})
    out = []
    if prompt.get("held_out"):
        out.append(f"held out of training: {prompt['held_out']}")
    if prompt.get("unseen"):
        out.append(f"in no training caption: {', '.join(prompt['unseen'])}")
    return tuple(out)


def _rows(found: Mapping[str, Any], displayed: Sequence[StudyVariant]) -> list[PromptRow]:
    """Prompts down, variants across; wordings of one prompt have a section of their own."""
    prompts_of = [_prompts(variant) for variant in displayed]
    places = dict.fromkeys(place for own in prompts_of for place in own)
    worded = {text for group in found["wordings"] for text in group}
    first = {text for texts in found["wordings"] for text in texts[:1]}
    rows = []
    for label, times in places:
        if label in worded and (times > 0 or label not in first):
            continue
        own = [prompts.get((label, times)) for prompts in prompts_of]
        texts = tuple(
            "" if at is None or (grid := variant.grid) is None or grid.kind != "text" else str(grid.content[at[0]])
            for variant, at in zip(displayed, own, strict=True)
        )
        cells = tuple(_cell(variant, at) for variant, at in zip(displayed, own, strict=True))
        rows.append(PromptRow(label, _tags(found, label), cells, texts))
    return rows


def _wordings(found: Mapping[str, Any], displayed: Sequence[StudyVariant]) -> list[list[PromptRow]]:
    out = []
    for number, group in enumerate(found["wordings"]):
        rows = []
        for place, text in enumerate(group):
            cells, notes = [], []
            for variant in displayed:
                cells.append(_cell(variant, _worded(variant, group, text)))
                ratio = found["wording_effects"][variant.name][number][place]["ratio"]
                notes.append("" if ratio is None or place == 0 else f"moved {titles.number(ratio, 2)}")
            label = titles.visible(text) or "(empty)"
            rows.append(PromptRow(label, _tags(found, text), tuple(cells), notes=tuple(notes)))
        out.append(rows)
    return out


def _worded(variant: StudyVariant, group: Sequence[str], text: str) -> Array | None:
    """Rows of a wording that have the noise of the first wording."""
    grid = variant.grid
    assert grid is not None
    wanted: Array | None = None
    for wording in (group[0], text):
        at = np.array([row for row, prompt in enumerate(grid.prompts) if prompt.text == wording], dtype=np.int64)
        sets = [at[grid.group[at] == number] for number in np.unique(grid.group[at])]
        keys = None if wanted is None else grid.fields["key"][wanted]
        wanted = next((own for own in sets if keys is None or np.array_equal(grid.fields["key"][own], keys)), None)
        if wanted is None:
            return None
    return wanted


def _trained(variant: StudyVariant) -> tuple[str, str] | None:
    """The last training of the variant that has checkpoints: title and unit."""
    having = [t for t in variant.facts.trainings if variant.facts.path(t.unit, epochs.FILE) is not None]
    return (having[-1].title, having[-1].unit) if having else None


def _series(found: Mapping[str, Any], variant: StudyVariant) -> CheckpointGrid | None:
    trained = _trained(variant)
    if trained is None or variant.grid is None or variant.grid.kind != "image":
        return None
    _, unit = trained
    stored = files.read_json(variant.facts.run.unit(unit) / epochs.FILE)["epochs"]
    grids = []
    for row in stored:
        folder = variant.facts.run.unit(unit) / f"epoch-{int(row['epoch']):04d}"
        listed = row["epoch"] == int(row["epoch"]) and folder.is_dir()
        name = f"{folder.name}/grid.parquet" if listed else "grid.parquet"
        samples = variant.facts.samples(unit, name)
        if samples is not None:
            grids.append((f"{row['epoch']:g}", samples))
    if len(grids) > _CHECKPOINTS:
        grids = [grids[i] for i in np.unique(np.linspace(0, len(grids) - 1, _CHECKPOINTS).round().astype(int))]
    rows = []
    for (label, _), at in list(_prompts(variant).items())[:_ROWS]:
        cells = tuple(image_data.strip(own.content[at[:1]]) for _, own in grids)
        rows.append(PromptRow(label, _tags(found, label), cells))
    progress = epochs.progress(variant.facts, variant.name, unit)
    wide = min(len(np.unique(variant.grid.group)), image_data.FRAME_COLUMNS)
    frames = tuple(image_data.sheet(own.content[image_data.grid_order(own, wide)], wide) for _, own in grids)
    heads = tuple(f"epoch {e}" for e, _ in grids)
    return CheckpointGrid(variant.name, heads, tuple(rows), progress.sentences if progress else (), frames, 66 * wide)


def _by_epoch(found: Mapping[str, Any], every: Sequence[StudyVariant]) -> list[Card]:
    """A chart for each metric, with a line for each variant."""
    read = []
    for place, variant in enumerate(every):
        trained = _trained(variant)
        if trained is not None:
            path = variant.facts.run.unit(trained[1]) / epochs.FILE
            read.append((variant.name, place, files.read_json(path)["epochs"]))
    cards = []
    for metric in found["metrics"]:
        name, term = metric["name"], _term(metric)
        lines = [
            variant_charts.EpochSeries(variant, place, tuple(
                (row["epoch"], m["value"], m["low"], m["high"]) for row in rows
                if (m := row["metrics"].get(name)) is not None and m["value"] is not None
            ))
            for variant, place, rows in read
        ]
        figure = variant_charts.by_epoch(term.title, lines)
        if figure is not None:
            cards.append(Card(term.title, term.meaning, direction(metric["better"]), figure))
    return cards


def _plateaus(every: Sequence[StudyVariant]) -> list[tuple[str, ...]]:
    """(variant, metric, plateau, its value, price to there, last, price to the last, moved, flipped)."""
    rows: list[tuple[str, ...]] = []
    for variant in every:
        trained = _trained(variant)
        if trained is None:
            continue
        stored = files.read_json(variant.facts.run.unit(trained[1]) / epochs.FILE)
        name, spent = stored["headline"], epochs.cost(variant.facts, trained[1])
        if name is None:
            continue
        at, last = stored["plateau"][name]["plateau"], stored["epochs"][-1]["epoch"]
        value = next(row["metrics"][name] for row in stored["epochs"] if row["epoch"] == at)
        steady = (stored["consistency"] or [None])[-1]
        rows.append((
            variant.name, titles.term(name, variant.facts.specs.get(name)).title, f"{at:g}", titles.interval(value),
            spent.until(at) if spent else "–", f"{last:g}", spent.until(last) if spent else "–",
            titles.number(steady["ratio"], 2) if steady else "–", titles.share(steady["flipped"]) if steady else "–",
        ))
    return rows


def _pairs(every: Sequence[StudyVariant]) -> list[tuple[str, list[Any]]]:
    """Of each variant, the samples that are nearest to a training sample, each beside it."""
    out = []
    for variant in every:
        _, pairs = nearest_pairs(variant.facts)
        if pairs:
            out.append((variant.name, pairs[:_PAIRS]))
    return out

"""The samples of every model from the same prompts and the same noise: side by side, and as a flip-book."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from upturn.report import pictures, text
from upturn.report import points as clouds
from upturn.report.facts import DATA, Column, Facts
from upturn.report.titles import visible
from upturn.types import Array, Kind, Prompt, Samples

_WIDE = 10  # pictures in a row of a flip-book's frame
_FRAMES = 24  # of a flip-book at most, evenly chosen beyond: large pictures weigh about 60 kB a frame
_COLUMNS = 16  # models beside each other at most; the kept one always
_CLOUD = 100  # points from which a cloud can be seen
NO_DRAWING = Markup("")
_SHORT = 12  # characters of a row's label that a phone has room for
_PROMPT = 300  # characters of a prompt that are shown


@dataclass(frozen=True)
class Cell:
    """One model's samples for one prompt: a picture of all candidates, or texts."""

    column: Column
    source: str = ""
    texts: tuple[tuple[list[text.Piece], int], ...] = ()  # pieces, and characters left out


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Frame:
    """One moment of the flip-book: a picture, a drawing or texts."""

    label: str
    detail: str
    source: str = ""
    drawing: Markup = NO_DRAWING
    texts: tuple[tuple[str, str], ...] = ()  # prompt, text


@dataclass(frozen=True)
class Gallery:
    kind: Kind
    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = ()
    panels: tuple[tuple[Column, Markup], ...] = ()
    frames: tuple[Frame, ...] = ()
    definitions: Markup = NO_DRAWING
    note: str = ""
    crisp: bool = False
    per_prompt: int = 1
    shape: tuple[int, int] = (1, 1)  # of a frame: how many pictures wide and high

    @property
    def short_labels(self) -> bool:
        return all(len(row.label) <= _SHORT for row in self.rows)


def gallery(facts: Facts) -> Gallery | None:
    """None where no model has been sampled yet."""
    grids = {c.unit: g for c in facts.columns if (g := facts.samples(c.unit, "grid.parquet")) is not None and len(g)}
    every = [c for c in facts.columns if c.unit in grids]
    if not every:
        return None
    columns = _some(every, facts.kept)
    note = f"{len(columns)} of {len(every)} models are shown." if len(columns) < len(every) else ""
    kind = grids[columns[-1].unit].kind
    if kind == "points":
        return _points(facts, columns, note)
    classes = tuple(str(name) for name in facts.info(DATA, "load").get("classes", ()))
    rows = _rows(columns, grids, classes)
    first = grids[columns[0].unit]
    per_prompt = int(np.bincount(first.group).max())
    series = _series(facts, columns, grids)
    if kind == "text":
        frames = tuple(Frame(label, detail, texts=_texts(made, classes)) for label, detail, made in series)
        return Gallery(kind, columns, rows, frames=frames, note=note, per_prompt=per_prompt)
    prompts = len(np.unique(first.group))
    wide = min(prompts, _WIDE)
    frames = tuple(
        Frame(label, detail, pictures.sheet(made.content[in_blocks(made, wide)], wide))
        for label, detail, made in series
    )
    shape = (wide, -(-prompts // wide) * per_prompt)
    return Gallery(
        kind, columns, rows, frames=frames, note=note, crisp=pictures.crisp(first.content), per_prompt=per_prompt,
        shape=shape,
    )


def _some(columns: Sequence[Column], kept: Column | None) -> tuple[Column, ...]:
    """The models before the rounds, the kept one, and others evenly; all of them where they fit."""
    if len(columns) <= _COLUMNS:
        return tuple(columns)
    picks = set(np.linspace(0, len(columns) - 1, _COLUMNS).round().astype(int).tolist())
    return tuple(c for i, c in enumerate(columns) if i in picks or c.decision == "stage" or c is kept)


def prompt_label(prompt: Prompt, classes: Sequence[str], position: int | None = None) -> str:
    """What a sample was asked for, in a word."""
    if prompt.text:
        return visible(prompt.text[:_PROMPT]) + ("…" if len(prompt.text) > _PROMPT else "")
    if prompt.label is not None:
        return visible(classes[prompt.label]) if 0 <= prompt.label < len(classes) else str(prompt.label)
    return "" if position is None else f"#{position + 1}"


def _rows(columns: Sequence[Column], grids: Mapping[str, Samples], classes: Sequence[str]) -> tuple[Row, ...]:
    rows = []
    first = grids[columns[0].unit]
    for position, group in enumerate(np.unique(first.group).tolist()):
        cells: list[Cell] = []
        before: list[str] = []
        # greedy candidates of a prompt are one answer
        several = any(len(set(map(str, g.content[g.group == group]))) > 1 for g in grids.values() if g.kind == "text")
        for column in columns:
            grid = grids[column.unit]
            mine = grid.content[grid.group == group]
            if grid.kind == "image":
                cells.append(Cell(column, pictures.strip(mine) if len(mine) else ""))
                continue
            shown = [text.shortened(str(body)) for body in (mine if several else mine[:1])]
            known: list[str | None] = [*before, *[None] * len(shown)]
            pieces = [(text.changes(old, new), more) for old, (new, more) in zip(known, shown, strict=False)]
            cells.append(Cell(column, texts=tuple(pieces)))
            before = [new for new, _ in shown]
        at = int(np.flatnonzero(first.group == group)[0])
        rows.append(Row(prompt_label(first.prompts[at], classes, position), tuple(cells)))
    return tuple(rows)


def _series(
    facts: Facts, columns: Sequence[Column], made: Mapping[str, Samples]
) -> list[tuple[str, str, Samples]]:
    """(label, detail, samples) of every moment: checkpoints of a training, then the model that it ended with."""
    found: list[tuple[str, str, Samples]] = []
    for column in columns:
        found += _previews(facts, column, made[column.unit])
        found.append((column.full_title, _detail(column), made[column.unit]))
    if len(found) > _FRAMES:
        found = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, _FRAMES).round().astype(int))]
    return found


def _previews(facts: Facts, column: Column, final: Samples) -> list[tuple[str, str, Samples]]:
    series = facts.samples(column.unit, "previews.parquet")
    if series is None or (series.kind == "points" and len(series) < _CLOUD):
        return []
    epochs = series.fields["epoch"].astype(int)
    found = []
    for epoch in np.unique(epochs).tolist():
        part = series.take(epochs == epoch)
        if not np.array_equal(part.content, final.content):  # the last checkpoint is the model itself
            found.append((column.title, f"epoch {epoch}", part))
    return found


def _detail(column: Column) -> str:
    return {"stage": "end of training", "promoted": "promoted", "rejected": "rejected", "pending": "not yet judged"}[
        column.decision
    ]


def in_blocks(made: Samples, wide: int) -> Array:
    """Rows of ``made`` so that a sheet has prompts across and their candidates below each other."""
    groups = np.unique(made.group)
    order: list[int] = []
    for start in range(0, len(groups), wide):
        block = groups[start : start + wide]
        for candidate in np.unique(made.candidate):
            rows = [np.flatnonzero((made.group == g) & (made.candidate == candidate)) for g in block]
            order += [int(row[0]) for row in rows if len(row)]
    return np.array(order, dtype=np.int64)


def _texts(made: Samples, classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The first candidate of each prompt."""
    _, rows = np.unique(made.group, return_index=True)
    return tuple(
        (prompt_label(made.prompts[row], classes), text.shortened(str(made.content[row]))[0]) for row in rows.tolist()
    )


def _points(facts: Facts, columns: Sequence[Column], note: str) -> Gallery | None:
    """Clouds of the evaluation: the grid has too few points to be seen as one."""
    found = {c.unit: s for c in columns if (s := facts.samples(c.unit, "evaluation.parquet")) is not None}
    columns = tuple(c for c in columns if c.unit in found)
    real = facts.samples(DATA, "samples.parquet")
    if not columns or real is None or len(real) == 0:
        return None
    view = clouds.View.of(real.content)
    defs = [view.cloud(real.content, "cloud-real")]
    cloud = _namer(view, defs)
    drawn = {unit: cloud(made.content) for unit, made in found.items()}
    panels = tuple(
        (c, clouds.panel(view, "cloud-real", drawn[c.unit], f"samples of {c.full_title} over real ones"))
        for c in columns
    )
    known = {id(made): drawn[unit] for unit, made in found.items()}
    frames = tuple(
        Frame(label, detail, drawing=clouds.panel(
            view, "cloud-real", known.get(id(made)) or cloud(made.content), f"{label}, {detail}"
        ))
        for label, detail, made in _series(facts, columns, found)
    )
    shared = clouds.definitions(defs)
    said = f"{view.note} {note}".strip()
    return Gallery("points", columns, panels=panels, frames=frames, definitions=shared, note=said)


def _namer(view: clouds.View, defs: list[Markup]) -> Callable[[Array], str]:
    """Draws a cloud, keeps the drawing, and tells its name."""

    def name(content: Array) -> str:
        defs.append(view.cloud(content, f"cloud-{len(defs)}"))
        return f"cloud-{len(defs) - 1}"

    return name

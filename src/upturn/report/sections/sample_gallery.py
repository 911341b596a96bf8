"""Section: samples of every model from the same prompts and the same noise, side by side and as an animation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from markupsafe import Markup

from upturn.report import image_data, point_clouds, text_changes
from upturn.report.examples import prompt_label
from upturn.report.facts import DATA, Column, Facts
from upturn.report.section import Section
from upturn.types import Array, Kind, Samples

_FRAMES = 24  # of an animation at most, evenly chosen: a frame of large images takes about 60 kB
_COLUMNS = 16  # models beside each other at most; the kept one always
_CLOUD = 100  # points from which a cloud is recognizable
_NO_DRAWING = Markup("")
_SHORT = 12  # characters of a row's label that fit on a phone


@dataclass(frozen=True)
class SampleGallery(Section):
    """Samples of every model side by side."""

    title: ClassVar[str] = "Samples by model"
    contents: ClassVar[str] = "Samples"
    anchor: ClassVar[str] = "samples"
    order: ClassVar[int] = 20

    def render(self, facts: Facts) -> Markup | None:
        found = gallery(facts)
        return self.fill(gallery=found) if found is not None else None


@dataclass(frozen=True)
class GalleryCell:
    """One model's samples for one prompt: an image of all candidates, or texts."""

    column: Column
    source: str = ""
    texts: tuple[tuple[list[text_changes.Piece], int], ...] = ()  # pieces, and characters left out


@dataclass(frozen=True)
class GalleryRow:
    label: str
    cells: tuple[GalleryCell, ...]


@dataclass(frozen=True)
class GalleryFrame:
    """One frame of the animation: an image, a drawing or texts."""

    label: str
    detail: str
    source: str = ""
    drawing: Markup = _NO_DRAWING
    texts: tuple[tuple[str, str], ...] = ()  # prompt, text


@dataclass(frozen=True)
class SampleGrid:
    """Rows are prompts, columns are models; of points, panels are models. ``shape`` of a frame: images across, down."""

    kind: Kind
    columns: tuple[Column, ...]
    rows: tuple[GalleryRow, ...] = ()
    panels: tuple[tuple[Column, Markup], ...] = ()
    frames: tuple[GalleryFrame, ...] = ()
    definitions: Markup = _NO_DRAWING
    note: str = ""
    crisp: bool = False
    per_prompt: int = 1
    shape: tuple[int, int] = (1, 1)

    @property
    def short_labels(self) -> bool:
        return all(len(row.label) <= _SHORT for row in self.rows)


def gallery(facts: Facts) -> SampleGrid | None:
    """None before the first model was sampled."""
    grids = {c.unit: g for c in facts.columns if (g := facts.samples(c.unit, "grid.parquet")) is not None and len(g)}
    every = [c for c in facts.columns if c.unit in grids]
    if not every:
        return None
    columns = _some(every, facts.kept)
    note = f"{len(columns)} of {len(every)} models are displayed." if len(columns) < len(every) else ""
    kind = grids[columns[-1].unit].kind
    if kind == "points":
        return _points(facts, columns, note)
    classes = tuple(str(name) for name in facts.info(DATA, "load").get("classes", ()))
    rows = _rows(columns, grids, classes)
    first = grids[columns[0].unit]
    per_prompt = int(np.bincount(first.group).max())
    series = _series(facts, columns, grids)
    if kind == "text":
        frames = tuple(GalleryFrame(label, detail, texts=_texts(own, classes)) for label, detail, own in series)
        return SampleGrid(kind, columns, rows, frames=frames, note=note, per_prompt=per_prompt)
    prompts = len(np.unique(first.group))
    wide = min(prompts, image_data.FRAME_COLUMNS)
    frames = tuple(
        GalleryFrame(label, detail, image_data.sheet(own.content[image_data.grid_order(own, wide)], wide))
        for label, detail, own in series
    )
    shape = (wide, -(-prompts // wide) * per_prompt)
    return SampleGrid(
        kind, columns, rows, frames=frames, note=note, crisp=image_data.crisp(first.content), per_prompt=per_prompt,
        shape=shape,
    )


def _some(columns: Sequence[Column], kept: Column | None) -> tuple[Column, ...]:
    """The models before the rounds, the kept one, and others evenly spaced; all of them if they fit."""
    if len(columns) <= _COLUMNS:
        return tuple(columns)
    picks = set(np.linspace(0, len(columns) - 1, _COLUMNS).round().astype(int).tolist())
    return tuple(c for i, c in enumerate(columns) if i in picks or c.decision == "stage" or c is kept)


def _rows(columns: Sequence[Column], grids: Mapping[str, Samples], classes: Sequence[str]) -> tuple[GalleryRow, ...]:
    rows = []
    first = grids[columns[0].unit]
    for position, group in enumerate(np.unique(first.group).tolist()):
        cells: list[GalleryCell] = []
        before: list[str] = []
        # greedy decoding gives equal candidates: one is enough
        several = any(len(set(map(str, g.content[g.group == group]))) > 1 for g in grids.values() if g.kind == "text")
        for column in columns:
            grid = grids[column.unit]
            mine = grid.content[grid.group == group]
            if grid.kind == "image":
                cells.append(GalleryCell(column, image_data.strip(mine) if len(mine) else ""))
                continue
            bodies = [text_changes.shortened(str(body)) for body in (mine if several else mine[:1])]
            known: list[str | None] = [*before, *[None] * len(bodies)]
            pieces = [(text_changes.changes(old, new), more) for old, (new, more) in zip(known, bodies, strict=False)]
            cells.append(GalleryCell(column, texts=tuple(pieces)))
            before = [new for new, _ in bodies]
        at = int(np.flatnonzero(first.group == group)[0])
        rows.append(GalleryRow(prompt_label(first.prompts[at], classes, position), tuple(cells)))
    return tuple(rows)


def _series(
    facts: Facts, columns: Sequence[Column], samples: Mapping[str, Samples]
) -> list[tuple[str, str, Samples]]:
    """(label, detail, samples) of every frame: checkpoints of a training, then the trained model."""
    found: list[tuple[str, str, Samples]] = []
    for column in columns:
        found += _previews(facts, column, samples[column.unit])
        found.append((column.full_title, _detail(column), samples[column.unit]))
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
        if not np.array_equal(part.content, final.content):  # the last checkpoint is the trained model
            found.append((column.title, f"epoch {epoch}", part))
    return found


def _detail(column: Column) -> str:
    return {"stage": "end of training", "promoted": "promoted", "rejected": "rejected", "pending": "not yet decided"}[
        column.decision
    ]


def _texts(samples: Samples, classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The first candidate of each prompt."""
    _, rows = np.unique(samples.group, return_index=True)
    return tuple(
        (prompt_label(samples.prompts[row], classes), text_changes.shortened(str(samples.content[row]))[0])
        for row in rows.tolist()
    )


def _points(facts: Facts, columns: Sequence[Column], note: str) -> SampleGrid | None:
    """Clouds of the evaluation: the grid has too few points."""
    found = {c.unit: s for c in columns if (s := facts.samples(c.unit, "evaluation.parquet")) is not None}
    columns = tuple(c for c in columns if c.unit in found)
    real = facts.samples(DATA, "samples.parquet")
    if not columns or real is None or len(real) == 0:
        return None
    view = point_clouds.Projection.of(real.content)
    defs = [view.cloud(real.content, "cloud-real")]
    cloud = _namer(view, defs)
    drawn = {unit: cloud(own.content) for unit, own in found.items()}
    panels = tuple(
        (c, point_clouds.panel(view, "cloud-real", drawn[c.unit], f"samples of {c.full_title} over real ones"))
        for c in columns
    )
    known = {id(own): drawn[unit] for unit, own in found.items()}
    frames = tuple(
        GalleryFrame(label, detail, drawing=point_clouds.panel(
            view, "cloud-real", known.get(id(own)) or cloud(own.content), f"{label}, {detail}"
        ))
        for label, detail, own in _series(facts, columns, found)
    )
    shared = point_clouds.definitions(defs)
    note = f"{view.note} {note}".strip()
    return SampleGrid("points", columns, panels=panels, frames=frames, definitions=shared, note=note)


def _namer(view: point_clouds.Projection, defs: list[Markup]) -> Callable[[Array], str]:
    """Draws a cloud, keeps the drawing, and returns its name."""

    def name(content: Array) -> str:
        defs.append(view.cloud(content, f"cloud-{len(defs)}"))
        return f"cloud-{len(defs) - 1}"

    return name

"""captions: pictures and what a model will be told of them, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upturn.cli.options import RUNS, AsJson, RecipePath, RunsFolder, Settings

if TYPE_CHECKING:
    from upturn.data.caption_statistics import Span
    from upturn.plan.caption_preview import Preview


def captions(
    recipe: RecipePath,
    settings: Settings = [],
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the pictures.")] = None,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Twenty pictures with their captions, and statistics, by each strategy of a recipe."""
    from upturn.config import recipe as recipes
    from upturn.plan.caption_preview import previews

    asked = recipes.load(recipe, settings)
    notes, found = previews(asked, runs)
    if as_json:
        print(json.dumps({"notes": notes, "strategies": [_plain(preview) for preview in found]}, indent=1))
    else:
        _show(notes, found)
    if html is not None:
        _page(html, asked.name, notes, found)
        if not as_json:
            print(f"\nPage: {html}")


def _plain(preview: Preview) -> dict[str, object]:
    pairs = [{"picture": p.name, "class": p.group, "captions": list(p.captions)} for p in preview.pairs]
    counted = asdict(preview.statistics)
    return {"name": preview.name, "notes": list(preview.notes), "pairs": pairs, "statistics": counted}


def _show(notes: list[str], found: list[Preview]) -> None:
    from upturn.report.titles import visible

    for note in notes:
        print(f"note: {visible(note)}")
    for preview in found:
        print(f"\n{visible(preview.name)}")
        for note in preview.notes:
            print(f"note: {visible(note)}")
        wide = max((len(pair.name) for pair in preview.pairs), default=0)
        for pair in preview.pairs:
            more = f"  (and {len(pair.captions) - 1} more)" if len(pair.captions) > 1 else ""
            print(f"  {visible(pair.name):{wide}}  {_one_line(pair.captions[0])}{more}")
        for term, figure in _facts(preview):
            print(f"  {term}: {visible(figure)}")
        common = ", ".join(f"{visible(word)} {count:,}" for word, count in preview.statistics.common)
        print(f"  most common words: {common or 'none'}")


def _one_line(text: str) -> str:
    from upturn.report.titles import visible

    return visible(" ".join(text.split())) or "(no caption)"


def _facts(preview: Preview) -> Iterator[tuple[str, str]]:
    found = preview.statistics
    empty = f", {found.empty:,} empty" if found.empty else ", none empty"
    yield "captions", f"{found.captions:,} of {found.pictures:,} pictures, {found.distinct:,} different{empty}"
    if found.variants.most > 1:
        yield "a picture", _span(found.variants, "captions")
    yield "length", _span(found.words, "words")
    for read in found.tokens:
        cut = f"{read.cut:,} longer than the {read.limit:,} that are read, and cut" if read.cut else "none is cut"
        yield read.name, f"{_span(read.span, 'tokens')} of {read.limit:,}; {cut}"


def _span(span: Span, what: str) -> str:
    if span.least == span.most:
        return f"{span.most:,} {what}"
    return f"{span.least:,} to {span.most:,} {what}, median {span.median:g}"


def _page(path: Path, name: str, notes: list[str], found: list[Preview]) -> None:
    from upturn.report import captions_page as page

    sections = [
        page.CaptionStrategy(
            preview.name, list(_facts(preview)),
            [(word, count / preview.statistics.captions) for word, count in preview.statistics.common], preview.notes,
            [page.CaptionedImage(pair.picture, pair.name, pair.group, pair.captions) for pair in preview.pairs],
        )
        for preview in found
    ]
    page.write(path, name, notes, sections)

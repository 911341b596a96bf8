"""search: pictures of a recipe's data, or of a folder, by words or by a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from upturn.cli.options import RUNS, AsJson, RunsFolder

if TYPE_CHECKING:
    from upturn.runs.image_search import Found


def search(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A recipe, or a folder of pictures.")],
    text: Annotated[str | None, typer.Argument(metavar="[WORDS]", help="What to look for.")] = None,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="Look for what is like it.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="A dual encoder's folder or hub name (CLIP, SigLIP, …); else the recipe's, else "
                     "a small one, trained on the pictures."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many.")] = 20,
    near: Annotated[
        float | None, typer.Option("--near", help="Cosine from which two are near-duplicates; 1: only equals.")
    ] = None,
    size: Annotated[int, typer.Option("--size", min=8, help="Of a folder: pixels a side.")] = 32,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the pictures.")] = None,
    runs: RunsFolder = RUNS,
    as_json: AsJson = False,
) -> None:
    """Pictures by words ("french cat") or by a picture, near-duplicates hidden."""
    from upturn.runs import image_search as searching

    near = searching.NEAR if near is None else near
    where = searching.scope(source, size)
    found = searching.find(
        where, runs, text=text, image=image, k=k, near=near, encoder=encoder,
        say=lambda line: typer.echo(line, err=True),
    )
    query = f"“{text}”" if text is not None else f"pictures like {image}"
    if html is not None:
        _page(html, where.name, query, near, found)
    if as_json:
        print(json.dumps(_plain(found), indent=1))
        return
    _show(query, near, found)
    if html is not None:
        print(f"\nPage: {html}")


def _plain(found: Found) -> dict[str, object]:
    hits = [
        {"picture": found.name(hit.row), "id": str(found.samples.ids[hit.row]), "cosine": round(hit.cosine, 6),
         "said": found.text(hit.row), "hidden": [found.name(row) for row in hit.hidden]}
        for hit in found.hits
    ]
    return {"encoder": found.encoder, "notes": list(found.notes), "hits": hits, "hidden": found.hidden}


def _show(query: str, near: float, found: Found) -> None:
    from upturn.report.titles import visible

    for note in found.notes:
        print(f"note: {visible(note)}")
    print(f"{visible(query)} by {visible(found.encoder)}")
    wide = max((len(found.name(hit.row)) for hit in found.hits), default=0)
    for place, hit in enumerate(found.hits, 1):
        behind = f"  (+{len(hit.hidden)} nearly alike)" if hit.hidden else ""
        name, words = visible(found.name(hit.row)), visible(found.text(hit.row))
        print(f"{place:4}  {hit.cosine:6.3f}  {name:{wide}}  {words}{behind}")
    if found.hidden:
        print(f"{found.hidden} hidden: cosine to one that is shown at least {near:g}.")


def _page(path: Path, name: str, query: str, near: float, found: Found) -> None:
    from upturn.report import search_page as page

    hits = [
        page.SearchHit(
            found.samples.content[hit.row], found.name(hit.row), found.text(hit.row), hit.cosine, len(hit.hidden)
        )
        for hit in found.hits
    ]
    page.write(path, name, query, found.encoder, near, found.notes, hits)

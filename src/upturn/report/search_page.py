"""A page of the images that a search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upturn.report import image_data
from upturn.report.jinja import page_template, resource
from upturn.report.titles import visible
from upturn.store import files
from upturn.types import Array


@dataclass(frozen=True)
class SearchHit:
    """One image (H, W, C) uint8, its name, its text in the data, its cosine, and the number of hidden duplicates."""

    image: Array
    name: str
    text: str
    cosine: float
    hidden: int


def write(
    path: Path, name: str, query: str, encoder: str, near: float, notes: Sequence[str], hits: Sequence[SearchHit]
) -> None:
    """Write one HTML file that loads nothing else. Raises UserError if it cannot be written."""
    page = page_template("search_page.html.j2").render(
        name=visible(name), query=visible(query), encoder=visible(encoder), near=f"{near:g}",
        notes=[visible(note) for note in notes], hidden=sum(one.hidden for one in hits),
        style=resource("report.css"),
        hits=[{
            "source": image_data.strip(one.image[None]), "crisp": image_data.crisp(one.image[None]),
            "name": visible(one.name), "text": visible(one.text), "cosine": f"{one.cosine:.3f}", "hidden": one.hidden,
        } for one in hits],
    )
    with files.disk_errors(path):
        files.write_text(path, page)

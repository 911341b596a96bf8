"""A page of images and their captions, before training."""

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
class CaptionedImage:
    """One image (H, W, C) uint8 with its name, class and captions."""

    image: Array
    name: str
    group: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CaptionStrategy:
    """One strategy: (term, figure) rows, (word, share of captions) bars, notes, images."""

    name: str
    facts: Sequence[tuple[str, str]]
    common: Sequence[tuple[str, float]]
    notes: Sequence[str]
    images: Sequence[CaptionedImage]


def write(path: Path, name: str, notes: Sequence[str], sections: Sequence[CaptionStrategy]) -> None:
    """Write one HTML file that loads nothing else. Raises UserError if it cannot be written."""
    page = render(name, notes, sections)
    with files.disk_errors(path):
        files.write_text(path, page)


def render(name: str, notes: Sequence[str], sections: Sequence[CaptionStrategy]) -> str:
    """The page as text; captions are escaped."""
    return page_template("captions_page.html.j2").render(
        name=name, notes=[visible(note) for note in notes], sections=[_context(part) for part in sections],
        style=resource("report.css"), images=len(sections[0].images) if sections else 0,
    )


def _context(part: CaptionStrategy) -> dict[str, object]:
    return {
        "name": visible(part.name), "facts": [(term, visible(figure)) for term, figure in part.facts],
        "common": [(visible(word), share) for word, share in part.common],
        "notes": [visible(note) for note in part.notes],
        "images": [{
            "source": image_data.strip(one.image[None]), "crisp": image_data.crisp(one.image[None]),
            "name": visible(one.name), "group": visible(one.group),
            "captions": [visible(text) for text in one.captions],
        } for one in part.images],
    }

"""A page of pictures and their captions, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

from upturn.report import pictures
from upturn.report.titles import visible
from upturn.store import files
from upturn.types import Array


@dataclass(frozen=True)
class Shown:
    """One picture (H, W, C) uint8 with its name, class and captions."""

    picture: Array
    name: str
    group: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One strategy: (term, figure) rows, (word, share of captions) bars, notes, pictures."""

    name: str
    facts: Sequence[tuple[str, str]]
    common: Sequence[tuple[str, float]]
    notes: Sequence[str]
    shown: Sequence[Shown]


def write(path: Path, name: str, notes: Sequence[str], sections: Sequence[Section]) -> None:
    """One HTML file that needs nothing beside itself. Raises UserError where it cannot be written."""
    page = render(name, notes, sections)
    with files.disk_errors(path):
        files.write_text(path, page)


def render(name: str, notes: Sequence[str], sections: Sequence[Section]) -> str:
    """The page as text; captions are text in it, never markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("upturn.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )
    style = resources("upturn.report").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("captions.html.j2").render(
        name=name, notes=[visible(note) for note in notes], sections=[_section(part) for part in sections],
        style=style, pictures=len(sections[0].shown) if sections else 0,
    )


def _section(part: Section) -> dict[str, object]:
    return {
        "name": visible(part.name), "facts": [(term, visible(figure)) for term, figure in part.facts],
        "common": [(visible(word), share) for word, share in part.common],
        "notes": [visible(note) for note in part.notes],
        "shown": [{
            "source": pictures.strip(shown.picture[None]), "crisp": pictures.crisp(shown.picture[None]),
            "name": visible(shown.name), "group": visible(shown.group),
            "captions": [visible(text) for text in shown.captions],
        } for shown in part.shown],
    }

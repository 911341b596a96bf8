"""A page of the pictures that a search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path

from upturn.report import pictures
from upturn.report.page import template
from upturn.report.titles import visible
from upturn.store import files
from upturn.types import Array


@dataclass(frozen=True)
class Shown:
    """One picture (H, W, C) uint8, its name, what the data says of it, its cosine, how many are hidden behind it."""

    picture: Array
    name: str
    said: str
    cosine: float
    hidden: int


def write(
    path: Path, name: str, asked: str, encoder: str, near: float, notes: Sequence[str], shown: Sequence[Shown]
) -> None:
    """One HTML file that needs nothing beside itself. Raises UserError where it cannot be written."""
    page = template("search.html.j2").render(
        name=visible(name), asked=visible(asked), encoder=visible(encoder), near=f"{near:g}",
        notes=[visible(note) for note in notes], hidden=sum(one.hidden for one in shown),
        style=resources("upturn.report").joinpath("report.css").read_text(encoding="utf-8"),
        shown=[{
            "source": pictures.strip(one.picture[None]), "crisp": pictures.crisp(one.picture[None]),
            "name": visible(one.name), "said": visible(one.said), "cosine": f"{one.cosine:.3f}", "hidden": one.hidden,
        } for one in shown],
    )
    with files.disk_errors(path):
        files.write_text(path, page)

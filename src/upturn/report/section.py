"""Base class of the sections of a run report, and the list of all sections in their order on the page."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import ClassVar

from markupsafe import Markup

from upturn.config import components
from upturn.report.facts import Facts
from upturn.report.jinja import fill

KIND = "section"


@dataclass(frozen=True)
class Section(ABC):
    """One part of a run report. A subclass in ``report/sections/`` is on the page; nothing else names it.

    title: heading of the section, and its name in the table of contents where ``contents`` is empty
    contents: name in the table of contents
    anchor: id of the section, the target of links
    order: position on the page, ascending; the shipped sections leave gaps of 10
    in_header: rendered above the table of contents, without heading and without an entry in it
    template: Jinja source of the body; where it is empty, the file NAME.html.j2 beside the section's module NAME.py
    """

    title: ClassVar[str]
    anchor: ClassVar[str]
    order: ClassVar[int]
    contents: ClassVar[str] = ""
    in_header: ClassVar[bool] = False
    template: ClassVar[str] = ""

    @abstractmethod
    def render(self, facts: Facts) -> Markup | None:
        """The body of the section, without its heading; None if the run has nothing to display here."""

    def warnings(self, facts: Facts) -> list[str]:
        """Sentences that must not be missed: the verdict at the top of the page repeats them."""
        return []

    def fill(self, **values: object) -> Markup:
        """The section's template with ``values``. Strings are escaped, Markup is not."""
        return fill(self.template or self._template_file(), **values)

    def _template_file(self) -> str:
        package, _, name = type(self).__module__.rpartition(".")
        return resources(importlib.import_module(package)).joinpath(f"{name}.html.j2").read_text(encoding="utf-8")


def all_sections() -> list[Section]:
    """Every section of ``report/sections/``, in the order of the page."""
    found: list[Section] = [components.make(KIND, name) for name in components.names(KIND)]
    return sorted(found, key=lambda section: section.order)

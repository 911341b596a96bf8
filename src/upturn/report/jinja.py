"""Jinja templates of the report, with everything escaped that is not marked as safe, and the files of this package."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment, Template

PACKAGE = "upturn.report"


@cache
def environment() -> Environment:
    """Undefined variables are errors; templates import the macros of this package by file name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(PACKAGE, "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )


def page_template(name: str) -> Template:
    """The template of a whole page, by its file name in this package."""
    return environment().get_template(name)


def fill(source: str, **values: object) -> Markup:
    """A template given as text, rendered. Strings are escaped, Markup is not."""
    return Markup(_compiled(source).render(**values))


@cache
def _compiled(source: str) -> Template:
    return environment().from_string(source)


def resource(name: str) -> str:
    """A file of this package as text."""
    return resources(PACKAGE).joinpath(name).read_text(encoding="utf-8")


def script_hash(script: str) -> str:
    """The hash that a content security policy allows: no other script can run in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"

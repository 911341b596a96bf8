"""Pages from templates: one environment, everything escaped that is not marked by ``markup``."""

from __future__ import annotations

import hashlib
import secrets
from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

from fastapi.responses import HTMLResponse

from upturn.web.server_state import ServerState
from upturn.web.sessions import Session

if TYPE_CHECKING:
    from jinja2 import Environment

STATIC = {"voting.css": "text/css", "voting.js": "text/javascript", "icon.svg": "image/svg+xml"}


@cache
def static(name: str) -> bytes:
    """One of the three files in ``static``; KeyError for any other name."""
    STATIC[name]
    return resources("upturn.web").joinpath("static", name).read_bytes()


@cache
def version(name: str) -> str:
    """Changes when the file does, so that browsers may keep it."""
    return hashlib.sha256(static(name)).hexdigest()[:12]


@cache
def environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("upturn.web", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    made.globals.update(version=version, fresh_id=fresh_id)
    return made


def fresh_id() -> str:
    """For what a page will send: it is the page's own, however often that is sent."""
    return secrets.token_hex(12)


def page(
    state: ServerState, template: str, session: Session | None, *, status: int = 200, modes: tuple[str, ...] = (),
    here: str = "", **shown: Any,
) -> HTMLResponse:
    """A page with its head: the run's name, where one can go, who is signed in."""
    text = environment().get_template(template).render(
        run=state.name, session=session, going=state.going, studio=state.studio is not None, modes=modes, here=here,
        **shown,
    )
    return HTMLResponse(text, status)

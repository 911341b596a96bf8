"""Signing in and out, on the page and by the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from upturn.annotation.db.annotators import by_token
from upturn.annotation.db.validation import Person
from upturn.web.dependencies import State, Voter, Writer, checked, slow_down
from upturn.web.rendering import page
from upturn.web.schemas import Strict, Words
from upturn.web.server_state import ServerState
from upturn.web.sessions import COOKIE, LASTS, Session

router = APIRouter()
_Token = Annotated[Words, Field(max_length=200)]


class TokenIn(Strict):
    token: _Token


@router.get("/signin", response_class=HTMLResponse)
async def sign_in_form(request: Request, state: State) -> Response:
    """The form; a link with #token fills it in, and what stands behind # is never sent to a server."""
    return page(state, "signin.html.j2", None, wrong=False)


@router.post("/signin", response_class=HTMLResponse)
async def sign_in(request: Request, state: State, token: Annotated[str, Form(max_length=200)] = "") -> Response:
    person = await _known(request, state, token)
    if person is None:
        return page(state, "signin.html.j2", None, status=403, wrong=True)
    answer = RedirectResponse("/", 303)
    _remember(answer, state, state.signing.cookie(person))
    return answer


@router.post("/signout")
async def sign_out(state: State, session: Voter, csrf: Annotated[str, Form(max_length=200)] = "") -> Response:
    checked(session, csrf)
    answer = RedirectResponse("/signin", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.post("/api/session", tags=["programs"])
async def begin(request: Request, response: Response, state: State, given: TokenIn) -> dict[str, Any]:
    """Sign in; send ``csrf`` as X-CSRF-Token with everything that changes something."""
    person = await _known(request, state, given.token)
    if person is None:
        raise HTTPException(403, "this token is not known")
    cookie = state.signing.cookie(person)
    _remember(response, state, cookie)
    read = state.signing.read(cookie)
    assert read is not None
    return who(Session(person, read[2]))


@router.get("/api/session", tags=["programs"])
async def mine(session: Voter) -> dict[str, Any]:
    return who(session)


@router.delete("/api/session", tags=["programs"], status_code=204)
async def end(session: Writer) -> Response:
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE)
    return answer


def who(session: Session) -> dict[str, Any]:
    person = session.person
    return {"person": person.id, "name": person.name, "role": person.role, "team": person.team, "quota": person.quota,
            "given": person.given, "csrf": session.csrf}


async def _known(request: Request, state: ServerState, token: str) -> Person | None:
    """Whose token it is. 429 for an address that has sent too many wrong ones."""
    address = request.client.host if request.client else ""
    slow_down(state, "failures", address, 0.0)
    person = await state.read(lambda db: by_token(db, state.box.key, token.strip()))
    if person is None:
        slow_down(state, "failures", address)
        return None
    if person.id not in await state.people():
        state.forget()  # added by another server, or a moment ago
    return person


def _remember(response: Response, state: ServerState, cookie: str) -> None:
    response.set_cookie(
        COOKIE, cookie, max_age=LASTS, httponly=True, samesite="lax", secure=state.secure, path="/"
    )



"""What every request needs: a session, the permission, and a rate below the limit."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, HTTPException, Request

from upturn.web.server_state import ServerState
from upturn.web.sessions import COOKIE, Session, same


class SignIn(Exception):
    """Nobody is signed in: a page redirects to the sign-in form, the API answers 401."""


async def state_of(request: Request) -> ServerState:  # async: others are run in a thread each time
    found: ServerState = request.app.state.server
    return found


State = Annotated[ServerState, Depends(state_of)]


async def signed_in(request: Request, state: State) -> Session:
    """401 where nobody is, 429 for more than the limit of requests."""
    session = await state.session(request.cookies.get(COOKIE))
    if session is None:
        raise SignIn
    slow_down(state, "requests", session.person.id)
    return session


Voter = Annotated[Session, Depends(signed_in)]


async def administers(session: Voter) -> Session:
    if session.person.role != "admin":
        raise HTTPException(403, "this is for admins")
    return session


Admin = Annotated[Session, Depends(administers)]


def checked(session: Session, given: str | None) -> None:
    """403 where the token against forged requests is not this session's."""
    if not same(given, session.csrf):
        raise HTTPException(403, "this page is out of date: load it again")


async def writes(
    session: Voter, x_csrf_token: Annotated[str | None, Header(description="From the answer to signing in.")] = None
) -> Session:
    checked(session, x_csrf_token)
    return session


async def administers_writing(
    session: Admin, x_csrf_token: Annotated[str | None, Header(description="From the answer to signing in.")] = None
) -> Session:
    checked(session, x_csrf_token)
    return session


Writer = Annotated[Session, Depends(writes)]
AdminWriter = Annotated[Session, Depends(administers_writing)]


def slow_down(state: ServerState, what: str, who: str, cost: float = 1.0) -> None:
    """429 with the seconds to wait where the limit is reached."""
    wait = state.limits.wait(what, who, cost)
    if wait:
        raise HTTPException(429, "too many at once: wait a little", {"retry-after": str(int(wait) + 1)})

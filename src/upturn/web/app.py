"""The FastAPI app: pages and the HTTP API over one server state."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from upturn.annotation.db.validation import Refused
from upturn.errors import UserError
from upturn.web import admin_routes, auth, studio_routes, vote_routes
from upturn.web.dependencies import SignIn
from upturn.web.middleware import protect
from upturn.web.rendering import STATIC, page, static
from upturn.web.server_state import ServerState

_STATUS = {"unknown": 404, "paused": 403, "answered": 409, "conflict": 409, "wrong": 422}
_YEAR = 31_536_000  # seconds
_log = logging.getLogger("upturn.web")


def create(state: ServerState) -> FastAPI:
    """The app; it has no pages from elsewhere, its own description is /openapi.json."""
    app = FastAPI(
        title=f"upturn: votes on {state.name}", docs_url=None, redoc_url=None,
        description="Sign in with POST /api/session; send X-CSRF-Token with everything that changes something.",
    )
    app.state.server = state
    for router in (auth.router, vote_routes.router, studio_routes.router, admin_routes.router):
        app.include_router(router)
    app.add_api_route("/static/{name}", _static, include_in_schema=False)
    app.add_exception_handler(SignIn, _to_sign_in)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(UserError, _unable)
    app.add_exception_handler(AnyHTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong)
    protect(app, state.hosts)
    return app


async def _static(name: str) -> Response:
    if name not in STATIC:
        raise HTTPException(404, "there is nothing here")
    return Response(
        static(name), media_type=STATIC[name], headers={"cache-control": f"public, max-age={_YEAR}, immutable"}
    )


def _program(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _tell(request: Request, status: int, words: str, headers: Any = None) -> Response:
    """For a program JSON, for a person a page."""
    if _program(request):
        return JSONResponse({"detail": words}, status, headers)
    answer = page(request.app.state.server, "message.html.j2", None, status=status, words=words)
    answer.headers.update(headers or {})
    return answer


async def _to_sign_in(request: Request, _: Exception) -> Response:
    if _program(request):
        return JSONResponse({"detail": "nobody is signed in"}, 401)
    return RedirectResponse("/signin", 303)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _tell(request, _STATUS[error.code], error.what)


async def _unable(request: Request, error: Exception) -> Response:
    """The database or the run cannot be read: the reason is for whoever runs the server."""
    _log.error("%s", error)
    return _tell(request, 503, "this cannot be done just now; nothing was lost, try again in a moment")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _tell(request, error.status_code, str(error.detail), error.headers)


async def _wrong(request: Request, error: Exception) -> Response:
    """Where and why, without what was sent."""
    assert isinstance(error, RequestValidationError)
    if not _program(request):
        return _tell(request, 422, "this could not be understood: load the page again")
    found = [{"loc": list(one["loc"]), "msg": one["msg"]} for one in error.errors()]
    return JSONResponse({"detail": found}, 422)

"""What surrounds every answer: allowed hosts, size of a request, requests of other sites, and security headers.

Hosts and sizes are checked by Starlette. Security headers and the check of Origin are written here: Starlette has none.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 1 << 20  # bytes of a request: a corrected text of 100,000 characters fits
# styles and scripts are files of this server, nothing is inline, no other site may frame the page
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
    "x-frame-options": "DENY", "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
_UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}


def protect(app: Starlette, hosts: Collection[str] | None) -> None:
    """Add the middleware, the outermost last. ``hosts`` are the names that the server answers to; None: any.

    A page elsewhere that had its name point at this machine (DNS rebinding) would send another Host; one that posts
    here sends its own Origin.
    """
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=LARGEST)
    app.add_middleware(SameOriginMiddleware)
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=["*"] if hosts is None else sorted(hosts), www_redirect=False
    )
    app.add_middleware(SecurityHeadersMiddleware)


class SameOriginMiddleware:
    """403 for a request that changes something and comes from a page of another site."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in _UNSAFE:
            headers = Headers(scope=scope)
            origin, site = headers.get("origin"), headers.get("sec-fetch-site")
            host = headers.get("host", "").lower()
            if (origin is not None and host_of(origin) != host) or site in ("cross-site", "same-site"):
                await PlainTextResponse("this request comes from another site", 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def host_of(origin: str) -> str:
    """Host and port of an Origin header, "" where it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


class SecurityHeadersMiddleware:
    """Adds the security headers to every answer; an answer without a cache policy is not stored."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if scope.get("scheme") == "https":
                    headers["strict-transport-security"] = "max-age=31536000"
            await send(message)

        await self._app(scope, receive, send_with_headers)

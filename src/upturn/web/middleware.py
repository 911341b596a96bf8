"""Around every answer: whom it is for, how large a request may be, and what a browser may do with the page."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 1 << 20  # bytes of a request: a corrected text of 100,000 characters fits
# styles and scripts are files of ours, nothing is inline, nothing comes from elsewhere, nobody may frame the page
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


class Guard:
    """An ASGI middleware. ``hosts`` are the names that the server answers to (None: any).

    A page elsewhere that had its name point at this machine (DNS rebinding) would send another Host; one that posts
    here sends its own Origin.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        answer = _Answer(send, scope)
        if refusal is not None:
            await refusal(scope, receive, answer)
            return
        await self._app(scope, _Limited(receive), answer)

    def _refusal(self, scope: MutableMapping[str, Any], headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return PlainTextResponse("this server does not answer to that name", 421)
        if scope["method"] in _UNSAFE:
            origin, site = headers.get("origin"), headers.get("sec-fetch-site")
            if (origin is not None and urlsplit_host(origin) != host.lower()) or site in ("cross-site", "same-site"):
                return PlainTextResponse("this was sent by another site", 403)
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST:
            return PlainTextResponse("too large", 413)
        return None


def _name(host: str) -> str:
    """Without the port."""
    return host.lower().rsplit(":", 1)[0] if not host.endswith("]") else host.lower()


def urlsplit_host(origin: str) -> str:
    """Host and port of an Origin header, "" where it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


class _Limited:
    """A body that comes in pieces is counted, too."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._seen = receive, 0

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > LARGEST:
            raise HTTPException(413, "too large")
        return message


class _Answer:
    """Puts the headers on; what says nothing else is not to be kept by anybody."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send, self._scope = send, scope

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            if self._scope.get("scheme") == "https":
                headers["strict-transport-security"] = "max-age=31536000"
        await self._send(message)

"""Runs the server: on the loopback address by default, on a public one only if annotators have tokens."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from upturn.errors import UserError
from upturn.web.app import create
from upturn.web.server_state import ServerState

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_UP = 30.0  # seconds a server may take to begin
_STALE = 75  # seconds that an idle connection stays open: longer than a vote on a text usually takes


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def hosts_for(host: str) -> frozenset[str] | None:
    """The names that a server on this address answers to; any where it is public: its name is not known here."""
    return _LOOPBACK | {host.lower()} if is_loopback(host) else None


def address(host: str, port: int, secure: bool) -> str:
    """As a person writes it."""
    shown = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    shown = f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown
    return f"{'https' if secure else 'http'}://{shown}:{port}"


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens. UserError where the address is taken or not this machine's."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(found[0], socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
    except OSError as error:
        raise UserError(
            f"cannot listen: {error.strerror or error}", where=f"{host}:{port}", fix="Choose another --port or --host."
        ) from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def serve(
    state: ServerState, listening: socket.socket, certificate: Path | None = None, key: Path | None = None
) -> None:
    """Answer until interrupted, which is how it ends well."""
    with suppress(KeyboardInterrupt):
        _server(state, certificate=certificate, key=key).run(sockets=[listening])


@contextmanager
def running(state: ServerState) -> Iterator[str]:
    """A server in a thread of this process, on any free port of this machine; its address."""
    listening = bound("127.0.0.1", 0)
    server = _server(state)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="voting", daemon=True)
    thread.start()
    begun = time.monotonic()
    while not server.started:
        if not thread.is_alive() or time.monotonic() - begun > _UP:
            raise RuntimeError("the voting page did not begin")
        time.sleep(0.01)
    try:
        yield address("127.0.0.1", listening.getsockname()[1], False)
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def _server(state: ServerState, certificate: Path | None = None, key: Path | None = None) -> Any:
    import uvicorn

    return uvicorn.Server(uvicorn.Config(
        create(state), log_level="warning", access_log=False, server_header=False, date_header=True,
        timeout_keep_alive=_STALE, timeout_graceful_shutdown=5, proxy_headers=False, ws="none",
        ssl_certfile=str(certificate) if certificate else None, ssl_keyfile=str(key) if key else None,
    ))

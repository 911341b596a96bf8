"""Access tokens, and the key that they are hashed and cookies are signed with.

A token is 32 random bytes, so a fast hash suffices: 2^256 values cannot be guessed. It is
hashed with a key (HMAC-SHA-256, RFC 2104) that is stored outside the database: with the database alone a guess
cannot be checked.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from upturn.errors import UserError
from upturn.store import files

KEY = "votes.key"
_BYTES = 32


def new_token() -> str:
    """43 letters, digits, - and _: 256 random bits."""
    return secrets.token_urlsafe(_BYTES)


def hashed(key: bytes, token: str) -> str:
    return hmac.new(key, b"token:" + token.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def key_in(folder: Path) -> bytes:
    """The key of a run's votes, created by the first call; only its owner may read the file.

    Raises UserError where the file is damaged, or others may read it.
    """
    path = folder / KEY
    with files.disk_errors(path):
        if not path.exists():
            _make(path)
        mode, raw = path.stat().st_mode, path.read_text(encoding="ascii", errors="replace").strip()
    if mode & 0o077:
        raise UserError("others may read the key of the votes", where=str(path), fix=f"chmod 600 {path}")
    try:
        key = bytes.fromhex(raw)
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise UserError(
            "this is no key of votes", where=str(path),
            fix="Put it back from a copy; without it every token has to be renewed (remove the file).",
        )
    return key


def _make(path: Path) -> None:
    """Writes the key atomically; of two concurrent writers the first one's key is kept."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_hex(_BYTES).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    files.sync(path.parent)

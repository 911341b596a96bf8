"""Names of files as people write them: one name may be stored in two ways.

macOS stores "é" as two characters (NFD), other systems keep the one that was typed (NFC); names are compared composed.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath
from typing import Literal

_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


def plain_name(name: str) -> str:
    """A path as it is compared: with slashes, its letters composed."""
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/"))))


def existing(path: Path) -> Path:
    """The path in the spelling that is on the disk; itself where there is none."""
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        spellings = [found / part, *(found / unicodedata.normalize(form, part) for form in _FORMS)]
        found = next((spelling for spelling in spellings if spelling.exists()), spellings[0])
    return found

"""Code that a model puts between lines of three or more backticks."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(`{3,})([^`\n]*)$", re.MULTILINE)


def last_fenced(text: str) -> str | None:
    """The content of the last fenced block, or None where there is none; a block that is cut short runs to the end."""
    block, opened = None, None
    for found in _FENCE.finditer(text):
        if opened is None:
            opened = found
        elif len(found[1]) >= len(opened[1]) and not found[2].strip():
            block, opened = text[opened.end() + 1 : found.start()], None
    return block if opened is None else text[opened.end() + 1 :]

"""Long text cut into pieces at the best places near a wanted length."""

from __future__ import annotations

import re

# where a text may be cut, best first: after blank lines, after a line, after white space
_PLACES = (re.compile(r"\n[ \t]*\n+"), re.compile(r"\n"), re.compile(r"\s+"))


def pieces(text: str, length: int) -> list[str]:
    """Consecutive pieces of at most ``length`` characters that join to ``text`` exactly.

    Parts between blank lines are packed whole where they fit, else lines, else words; a word that is longer than
    ``length`` is cut.
    """
    return _packed(text, length, 0)


def _packed(text: str, length: int, level: int) -> list[str]:
    if len(text) <= length:
        return [text] if text else []
    if level == len(_PLACES):
        return [text[start : start + length] for start in range(0, len(text), length)]
    ends = [match.end() for match in _PLACES[level].finditer(text)]
    out: list[str] = []
    start = last = 0  # the open piece is text[start:last]
    for end in [*ends, len(text)]:
        if end - start > length and last > start:
            out.append(text[start:last])
            start = last
        if end - start > length:
            out.extend(_packed(text[start:end], length, level + 1))
            start = end
        last = end
    if start < len(text):
        out.append(text[start:])
    return out

"""Texts side by side, with what changed from one model to the next marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from upturn.report.titles import visible

_MOST = 700  # characters of a text that are shown
_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A run of text; ``changed`` where the model before did not say it."""

    text: str
    changed: bool


def shortened(text: str, most: int = _MOST) -> tuple[str, int]:
    """The beginning of a text, and how many characters are left out."""
    shown = visible(text)
    return (shown, 0) if len(shown) <= most else (shown[:most], len(shown) - most)


def changes(before: str | None, after: str) -> list[Piece]:
    """``after`` in pieces; all unchanged where nothing came before."""
    if before is None:
        return [Piece(after, False)]
    old, new = _TOKENS.findall(before), _TOKENS.findall(after)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    pieces: list[Piece] = []
    for kind, _, _, start, stop in matcher.get_opcodes():
        if start < stop:
            pieces.append(Piece("".join(new[start:stop]), kind != "equal"))
    return _joined(pieces)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """White space between two changes belongs to them: single words marked one by one are hard to read."""
    out: list[Piece] = []
    for i, piece in enumerate(pieces):
        between = 0 < i < len(pieces) - 1 and pieces[i - 1].changed and pieces[i + 1].changed
        current = Piece(piece.text, piece.changed or (between and not piece.text.strip()))
        if out and out[-1].changed == current.changed:
            out[-1] = Piece(out[-1].text + current.text, current.changed)
        else:
            out.append(current)
    return out

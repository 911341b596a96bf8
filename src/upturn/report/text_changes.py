"""Texts of consecutive models, with the changes marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from upturn.report.titles import visible

_MOST = 700  # characters of a text that are displayed
_TOKENS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True)
class Piece:
    """A part of a text; ``changed`` if the text of the model before does not have it."""

    text: str
    changed: bool


def shortened(text: str, most: int = _MOST) -> tuple[str, int]:
    """The beginning of a text, and the number of characters left out."""
    full = visible(text)
    return (full, 0) if len(full) <= most else (full[:most], len(full) - most)


def changes(before: str | None, after: str) -> list[Piece]:
    """``after`` in pieces; all unchanged if there is no text before."""
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
    """White space between two changes is marked with them, so that a changed phrase is one mark."""
    out: list[Piece] = []
    for i, piece in enumerate(pieces):
        between = 0 < i < len(pieces) - 1 and pieces[i - 1].changed and pieces[i + 1].changed
        current = Piece(piece.text, piece.changed or (between and not piece.text.strip()))
        if out and out[-1].changed == current.changed:
            out[-1] = Piece(out[-1].text + current.text, current.changed)
        else:
            out.append(current)
    return out

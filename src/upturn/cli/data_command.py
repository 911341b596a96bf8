"""upturn data: the rows of a recipe's data as tokens, with what is learned, before anything is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from upturn.cli.options import AsJson, RecipePath, Settings

if TYPE_CHECKING:
    from upturn.plan.data_preview import DataPreview

_LEARNED = ("\x1b[1;32m", "\x1b[0m")  # bold green, and back
_PLAIN_LEARNED = ("⟦", "⟧")  # around learned tokens where there is no terminal


def data(
    recipe: RecipePath,
    settings: Settings = [],
    count: Annotated[int, typer.Option("--rows", min=0, help="Rows to print.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Rows as the tokens that a language model reads, what is learned of them, and their lengths."""
    from upturn.config import recipe as recipes
    from upturn.plan.data_preview import preview

    found = preview(recipes.load(recipe, settings))
    if as_json:
        print(json.dumps(_as_json(found), ensure_ascii=False))
    else:
        _print(found, count)


def _as_json(found: DataPreview) -> dict[str, object]:
    rows = [
        {"tokens": list(tokens), "learned": list(learned), "text": text, "layout": found.layout, "part": part}
        for tokens, learned, text, part in zip(
            found.rows.tokens, found.rows.learned, found.texts, found.parts, strict=True
        )
    ]
    return {"rows": rows, "lengths": found.lengths(), "notes": list(found.notes)}


def _print(found: DataPreview, count: int) -> None:
    from upturn.report.titles import visible

    for note in found.notes:
        print(f"note: {visible(note)}")
    marks = _LEARNED if sys.stdout.isatty() else _PLAIN_LEARNED
    if count:
        print(f"learned tokens are {'green' if marks is _LEARNED else 'within ⟦ ⟧'}, tokens are divided by │")
    for row in range(min(count, len(found.parts))):
        tokens = found.rows.tokens[row]
        print(f"\nrow {row}, {found.parts[row]}, {len(tokens):,} tokens, {sum(found.rows.learned[row]):,} learned")
        print(highlighted([visible(piece) for piece in found.rows.pieces[row]], found.rows.learned[row], marks))
    lengths = found.lengths()
    print()
    for name in ("tokens", "learned"):
        figures = lengths[name]
        assert isinstance(figures, dict)
        print(f"{name} a row: " + ", ".join(f"{key} {value:,.10g}" for key, value in figures.items()))
    long, limit = lengths["too_long"], lengths["limit"]
    print(f"{long:,} of {lengths['rows']:,} rows are longer than max_length ({limit:,} tokens)")


def highlighted(pieces: Sequence[str], learned: Sequence[int], marks: tuple[str, str]) -> str:
    """Tokens divided by │, runs of learned ones within ``marks``."""
    out: list[str] = []
    for place, (piece, on) in enumerate(zip(pieces, learned, strict=True)):
        before = place > 0 and learned[place - 1]
        if place and on == before:
            out.append("│")
        elif place and before:
            out.append(marks[1])
        if on and not before:
            out.append(marks[0])
        out.append(piece)
    if learned and learned[-1]:
        out.append(marks[1])
    return "".join(out)

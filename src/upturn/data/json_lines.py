"""Reads JSON lines, one object per line; errors name the file and the line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from upturn.errors import UserError

_BOM = b"\xef\xbb\xbf"
_SHOWN = 60
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line that is not empty. BOM and CRLF are accepted.

    Raises UserError for a byte that is not UTF-8, a line that is not JSON, and JSON that is not an object.
    """
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            if line.strip():
                yield number, _object(line, f"{path}, line {number}")


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte {error.start + 1} of the line is not UTF-8", where=where, fix="Save the file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        excerpt = line.decode("utf-8").strip()[:_SHOWN]
        raise UserError(
            f"not valid JSON ({error.msg}, column {error.colno}): {excerpt!r}", where=where,
            fix="Each line must be one JSON object.",
        ) from error
    if not isinstance(found, dict):
        raise UserError(
            f"a JSON object is expected, this is a {type(found).__name__}", where=where,
            fix='Write each line as {"column": value, …}.',
        )
    if _HALF.search(line):  # an escape such as \ud83d: half a character, unless its other half follows
        for name, value in found.items():
            check_whole(value, name, where)
    return found


def check_whole(value: Any, name: str, where: str) -> None:
    """Raises UserError where a text holds half of a surrogate pair: no tokenizer, file or table can hold it."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"column '{name}' holds half a character (\\u{ord(value[error.start]):04x}, a lone surrogate) at "
                f"character {error.start + 1}", where=where,
                fix="Write the text again: it was cut in the middle of an emoji, say.",
            ) from error
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_whole(key, name, where)
            check_whole(inner, name, where)
    elif isinstance(value, list):
        for inner in value:
            check_whole(inner, name, where)


def column(found: dict[str, Any], name: str, where: str, key: str) -> Any:
    """One value of an object. Raises UserError naming the columns found and the one expected."""
    if name not in found:
        raise UserError(
            f"column '{name}' is expected (field '{key}'); found: {', '.join(map(str, found)) or 'none'}", where=where,
            fix=f"Set '{key}' to one of the columns found, or fix the line.",
        )
    return found[name]

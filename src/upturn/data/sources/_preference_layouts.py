"""The layouts in which preferences are written, and one row of each as an example of K candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from upturn.data import conversations
from upturn.data.sources import _preference_texts
from upturn.data.sources._columns import named
from upturn.data.sources._preference_texts import Bodies
from upturn.errors import UserError
from upturn.types.conversations import Messages

Layout = Literal["pair", "signed", "list", "label", "attributes"]
Row = Mapping[str, Any]
KNOWN = frozenset({
    "prompt", "chosen", "rejected", "margin", "strength", "tie", "chosen_score", "rejected_score", "completions",
    "ranks", "scores", "completion", "label", "response_1", "response_2", "preference_strength", "tools",
})  # fmt: skip
_ALSO = {  # other names that published data sets have for a column
    "prompt": ("conversations", "messages"), "completion": ("response",),
    "completions": ("responses",), "chosen_score": ("score_chosen", "chosen_reward"),
    "rejected_score": ("score_rejected", "rejected_reward"), "strength": ("margin",),
    "response_1": ("response1",), "response_2": ("response2",), "preference_strength": ("overall_preference",),
}
_EXPECTED = (
    "expected: chosen and rejected; or response_1, response_2 and preference_strength; or completions with ranks or "
    "scores; or completion and label; or completion and the columns that 'attributes' names"
)


@dataclass(frozen=True)
class Example:
    """K candidates of one prompt: ranks 1 best, 0 unknown; scores and attributes NaN where there is none."""

    bodies: Bodies | None  # None for images
    images: list[bytes]
    ranks: list[int]
    scores: list[float]
    strength: float
    where: str
    label: int | None = None  # class of the prompt
    attributes: dict[str, float] = field(default_factory=dict)
    caption: str = ""  # the prompt of images
    tools: str = ""

    @property
    def prompt(self) -> str:
        return self.bodies.prompt if self.bodies is not None else self.caption

    @property
    def messages(self) -> Messages:
        return self.bodies.messages if self.bodies is not None else ()

    @property
    def contents(self) -> list[Any]:
        return self.bodies.contents if self.bodies is not None else list(self.images)

    @property
    def contradicts(self) -> bool:
        """Whether the scores of a pair say the opposite of its order."""
        scored = len(self.ranks) == 2 and not any(math.isnan(score) for score in self.scores)
        return scored and (self.ranks[1] - self.ranks[0]) * (self.scores[0] - self.scores[1]) < 0


def layout_of(row: Row, attributes: Sequence[str], where: str) -> Layout:
    """Which layout these columns are. Raises UserError naming those found and expected."""
    if "chosen" in row and "rejected" in row:
        return "pair"
    if all(_has(row, name) for name in ("response_1", "response_2", "preference_strength")):
        return "signed"
    if _has(row, "completions") and ("ranks" in row or "scores" in row):
        return "list"
    if _has(row, "completion") and attributes:
        return "attributes"
    if _has(row, "completion") and "label" in row:
        return "label"
    raise UserError(
        f"no layout of preferences has these columns: {', '.join(map(str, row)) or 'none'}; {_EXPECTED}", where=where,
        fix="Name them in 'columns': {chosen: the_file's_name, …}.",
    )


def example(
    layout: Layout, row: Row, attributes: Sequence[str], content: str, where: str, rendered: bool = False
) -> Example:
    """One row as an example. Raises UserError naming the column that is not there, or holds a wrong value."""
    found = _ORDERS[layout](row, attributes, where)
    prompt = _one(row, "prompt")
    tools = conversations.tools_of(row.get("tools"), "tools", where)
    if content == "text":
        if prompt is not None and not isinstance(prompt, str) and not _messages_or_none(prompt):
            raise _wrong("prompt", "text, or a list of {role, content}", prompt, where)
        bodies = _preference_texts.read(prompt, found.completions, found.columns, where, rendered)
        return Example(bodies, [], *found.order, where, found.label, found.attributes, tools=tools)
    if prompt is not None and not isinstance(prompt, str):
        raise _wrong("prompt", "text", prompt, where)
    pictures = [
        image_bytes(value, name, where) for value, name in zip(found.completions, found.columns, strict=True)
    ]
    return Example(None, pictures, *found.order, where, found.label, found.attributes, prompt or "")


def _messages_or_none(value: object) -> bool:
    return value == [] or conversations.is_conversation(value)


@dataclass(frozen=True)
class _Ordered:
    """The completions of one row as they stand there, the column of each, and (ranks, scores, strength)."""

    completions: list[Any]
    columns: list[str]
    order: tuple[list[int], list[float], float]
    label: int | None = None
    attributes: dict[str, float] = field(default_factory=dict)


def _pair(row: Row, attributes: Sequence[str], where: str) -> _Ordered:
    tie = row.get("tie") or False
    if not isinstance(tie, bool | int) or tie not in (0, 1):
        raise _wrong("tie", "true or false", tie, where)
    strength = _number(_one(row, "strength"), "strength", where)
    if strength < 0:
        raise _wrong("strength", "a number of at least 0: chosen is the better", strength, where)
    label = row.get("label")
    if label is not None and (not isinstance(label, int) or isinstance(label, bool)):
        raise _wrong("label", "the class of the prompt, a whole number", label, where)
    scores = [_number(_one(row, f"{name}_score"), f"{name}_score", where) for name in ("chosen", "rejected")]
    names = ["chosen", "rejected"]
    order = ([1, 1] if tie else [1, 2], scores, 1.0 if math.isnan(strength) else strength)
    return _Ordered([_column(row, name, where) for name in names], names, order, label)


def _signed(row: Row, attributes: Sequence[str], where: str) -> _Ordered:
    """As in HelpSteer2 (Wang et al. 2024, "HelpSteer2-Preference"): below 0 response_1 is better, above it response_2.

    0 is a tie; without a number the order is unknown.
    """
    names = ["response_1", "response_2"]
    contents = [_column(row, name, where) for name in names]
    by = _number(_column(row, "preference_strength", where), "preference_strength", where)
    ranks = [0, 0] if math.isnan(by) else [1 + (by > 0), 1 + (by < 0)]
    return _Ordered(contents, names, (ranks, [math.nan] * 2, abs(by) if by and not math.isnan(by) else 1.0))


def _list(row: Row, attributes: Sequence[str], where: str) -> _Ordered:
    contents = _column(row, "completions", where)
    if not isinstance(contents, list) or not contents:
        raise _wrong("completions", "a list of completions", contents, where)
    lists: dict[str, list[Any] | None] = {}
    for name in ("ranks", "scores"):
        lists[name] = row.get(name)
        if lists[name] is not None and (not isinstance(lists[name], list) or len(lists[name] or []) != len(contents)):
            raise _wrong(name, f"a list of {len(contents)}, one for each completion", lists[name], where)
    if lists["ranks"] is None and lists["scores"] is None:
        raise UserError("there are neither ranks nor scores", where=where, fix="Give one of them for each example.")
    scores = [_number(value, "scores", where) for value in lists["scores"] or [None] * len(contents)]
    if lists["ranks"] is None:
        better = sorted({score for score in scores if not math.isnan(score)}, reverse=True)
        place = {score: number for number, score in enumerate(better, start=1)}
        ranks = [place.get(score, 0) for score in scores]
    else:
        ranks = [_rank(value, where) for value in lists["ranks"] or []]
    return _Ordered(contents, ["completions"] * len(contents), (ranks, scores, 1.0))


def _label(row: Row, attributes: Sequence[str], where: str) -> _Ordered:
    rank = 1 if _good(row, where) else 2
    return _Ordered([_column(row, "completion", where)], ["completion"], ([rank], [math.nan], 1.0))


def _attributes(row: Row, attributes: Sequence[str], where: str) -> _Ordered:
    found = {name: _number(_column(row, name, where), name, where) for name in attributes}
    score = _number(row.get("score"), "score", where)
    return _Ordered([_column(row, "completion", where)], ["completion"], ([0], [score], 1.0), None, found)


_ORDERS: Mapping[Layout, Callable[[Row, Sequence[str], str], _Ordered]] = {
    "pair": _pair, "signed": _signed, "list": _list, "label": _label, "attributes": _attributes,
}


def image_bytes(value: object, name: str, where: str) -> bytes:
    raw = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(raw, bytes):
        raise _wrong(name, "the bytes of an image", raw, where)
    return raw


def _has(row: Row, name: str) -> bool:
    return any(known in row for known in (name, *_ALSO.get(name, ())))


def _one(row: Row, name: str) -> Any:
    """The value under this name or one of its others, None where there is none."""
    return next((row[known] for known in (name, *_ALSO.get(name, ())) if row.get(known) is not None), None)


def _column(row: Row, name: str, where: str) -> Any:
    if not _has(row, name):
        raise UserError(
            f"column '{name}' is expected; found: {', '.join(map(str, row)) or 'none'}", where=where,
            fix="All rows of the data must have one layout; fix the row.",
        )
    return _one(row, name)


def _good(row: Row, where: str) -> bool:
    label = _column(row, "label", where)
    if label not in (0, 1):  # True and False, too
        raise _wrong("label", "true or 1 (good), false or 0 (bad)", label, where)
    return bool(label)


def _number(value: object, name: str, where: str) -> float:
    if value is None:
        return math.nan
    if not isinstance(value, int | float):
        raise _wrong(name, "a number", value, where)
    return float(value)


def _rank(value: object, where: str) -> int:
    if not isinstance(value, int | float) or value < 0 or value != int(value):
        raise _wrong("ranks", "whole numbers, 1 for the best, 0 where unknown", value, where)
    return int(value)


def _wrong(name: str, expected: str, found: object, where: str) -> UserError:
    excerpt = repr(found)[:40] if isinstance(found, bool | int | float | str) else named(found)
    return UserError(f"column '{name}' must hold {expected}, here it holds {excerpt}", where=where, fix="Fix the row.")

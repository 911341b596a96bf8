"""Arithmetic as people write it down: one operation a step, exact."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_TOKEN = re.compile(r"\d+\.?\d*|\.\d+|[-+*/()]")
Exact = int | Fraction  # whole numbers are always int: several times faster, and nearly all there are
_PRECEDENCE = {"*": 2, "/": 2, "+": 1, "-": 1}


@dataclass(frozen=True)
class Number:
    """An exact value and how it is written; ``text`` is None where no finite decimal writes it."""

    value: Exact
    text: str | None


Token = Number | str


def decimal(value: Exact) -> str | None:
    """The shortest decimal that is exactly ``value``, None where there is none (1/3)."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    twos = (rest & -rest).bit_length() - 1
    rest >>= twos
    while rest % 5 == 0:
        rest, places = rest // 5, places + 1
    if rest != 1:
        return None
    places = max(places, twos)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def tokens(text: str) -> list[Token]:
    """Numbers, operators and brackets; a sign without left operand belongs to the number after it.

    Raises ValueError where a character, or the order, is not arithmetic.
    """
    out: list[Token] = []
    place, sign = 0, ""
    for match in _TOKEN.finditer(text):
        if match.start() != place:
            break
        place = match.end()
        word = match.group()
        operand = bool(out) and (isinstance(out[-1], Number) or out[-1] == ")")
        if word[0].isdigit() or word[0] == ".":
            if operand:
                raise ValueError(f"two numbers in a row in {text!r}")
            shown = sign.replace("+", "") + word
            out.append(Number(int(shown) if word.isdigit() else _whole(Fraction(shown)), shown))
            sign = ""
        elif sign or (word == "(" and operand) or (word not in "+-(" and not operand):
            raise ValueError(f"{word!r} is out of place in {text!r}")
        elif word in "+-" and not operand:
            sign = word
        else:
            out.append(word)
    if place != len(text) or sign or not out or not (isinstance(out[-1], Number) or out[-1] == ")"):
        raise ValueError(f"{text!r} is not arithmetic")
    return out


def written(items: list[Token]) -> str | None:
    """The expression as text, negative numbers in brackets after an operator; None where a number has no text."""
    out: list[str] = []
    for place, item in enumerate(items):
        if isinstance(item, str):
            out.append(item)
        elif item.text is None:
            return None
        else:
            inner = place > 0 and items[place - 1] != "("
            out.append(f"({item.text})" if item.value < 0 and inner else item.text)
    return "".join(out)


def _bare(items: list[Token]) -> list[Token]:
    """Without brackets around a single number."""
    place = 0
    while place + 2 < len(items):
        if items[place] == "(" and items[place + 2] == ")":
            items = [*items[:place], items[place + 1], *items[place + 3 :]]
            place = max(place - 1, 0)
        else:
            place += 1
    return items


def _next(items: list[Token]) -> int:
    """Where the operator stands that comes first: leftmost innermost bracket, then * and /, then left to right."""
    start, stop = 0, len(items)
    if ")" in items:
        stop = items.index(")")
        opened = [place for place in range(stop) if items[place] == "("]
        if not opened:
            raise ValueError("a bracket closes that was never opened")
        start = opened[-1] + 1
    inside = [place for place in range(start, stop) if isinstance(items[place], str)]
    if not inside or "(" in (items[place] for place in inside):
        raise ValueError("a bracket is left open or empty")
    return max(inside, key=lambda place: (_PRECEDENCE[str(items[place])], -place))


def _whole(value: Fraction) -> Exact:
    return value.numerator if value.denominator == 1 else value


def _apply(operator: str, left: Exact, right: Exact) -> Exact:
    if operator == "/":
        return _whole(Fraction(left) / right)
    result = left + right if operator == "+" else left - right if operator == "-" else left * right
    return result if isinstance(result, int) else _whole(result)


@dataclass(frozen=True)
class Worked:
    """An expression worked out.

    values  the result of each operation, in order; the last is the value of the whole
    steps   the expression after each operation, as text; None where a value on the way has no finite decimal
    """

    value: Exact
    values: tuple[Exact, ...]
    steps: tuple[str, ...] | None


def work_out(text: str) -> Worked:
    """Works an expression out, one operation at a time: brackets first, then * and /, then + and -, left to right.

    Raises ValueError where it is not arithmetic, ZeroDivisionError where it divides by 0.
    """
    items = _bare(tokens(text))
    values: list[Exact] = []
    steps: list[str | None] = []
    while len(items) > 1:
        place = _next(items)
        left, operator, right = items[place - 1 : place + 2]
        if not (isinstance(left, Number) and isinstance(operator, str) and isinstance(right, Number)):
            raise ValueError(f"{text!r} is not arithmetic")
        value = _apply(operator, left.value, right.value)
        items = _bare([*items[: place - 1], Number(value, decimal(value)), *items[place + 2 :]])
        values.append(value)
        steps.append(written(items))
    only = items[0]
    if not isinstance(only, Number):
        raise ValueError(f"{text!r} is not arithmetic")
    shown = tuple(step for step in steps if step is not None)
    return Worked(only.value, tuple(values), shown if len(shown) == len(steps) else None)

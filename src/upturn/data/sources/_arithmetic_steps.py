"""Exact arithmetic, worked out one operation per step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_TOKEN = re.compile(r"\d+\.?\d*|\.\d+|[-+*/()]")
Exact = int | Fraction  # whole numbers are always int: several times faster, and nearly all there are
_FIRST = ("*", "/")  # before + and -


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
            written = sign.replace("+", "") + word
            out.append(Number(int(written) if word.isdigit() else _whole(Fraction(written)), written))
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


def _in_expression(value: Exact, text: str | None, before: str | None) -> str | None:
    """A number as written in an expression: a negative one in brackets after an operator (``before``)."""
    return f"({text})" if value < 0 and text is not None and before not in (None, "(") else text


def _bare(values: list[Exact | None], texts: list[str | None]) -> None:
    """Takes away brackets around a single number."""
    place = 0
    while place + 2 < len(texts):
        value = values[place + 1]
        if texts[place] == "(" and texts[place + 2] == ")" and value is not None:
            before = texts[place - 1] if place else None
            values[place : place + 3] = [value]
            texts[place : place + 3] = [_in_expression(value, texts[place + 1], before)]
            place = max(place - 1, 0)
        else:
            place += 1


def _next(texts: list[str | None]) -> int:
    """The position of the operator to apply first: leftmost innermost bracket, then * and /, then left to right."""
    start, stop = 0, len(texts)
    if ")" in texts:
        stop = texts.index(")")
        opened = [place for place in range(stop) if texts[place] == "("]
        if not opened:
            raise ValueError("a bracket closes that was never opened")
        start = opened[-1] + 1
    elif "(" in texts:
        raise ValueError("a bracket is left open or empty")
    return _first(texts, start, stop)


def _first(texts: list[str | None], start: int, stop: int) -> int:
    """The same between two places without brackets: numbers and operators alternate."""
    for place in range(start + 1, stop, 2):
        if texts[place] in _FIRST:
            return place
    return start + 1


def _whole(value: Fraction) -> Exact:
    return value.numerator if value.denominator == 1 else value


def _apply(operator: str | None, left: Exact | None, right: Exact | None) -> Exact:
    assert left is not None and right is not None
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
    items = tokens(text)
    values = [item.value if isinstance(item, Number) else None for item in items]
    texts = [item.text if isinstance(item, Number) else item for item in items]
    for place, value in enumerate(values[1:], 1):
        if value is not None:
            texts[place] = _in_expression(value, texts[place], texts[place - 1])
    return work_out_pieces(values, texts)


def work_out_pieces(values: list[Exact | None], texts: list[str | None]) -> Worked:
    """The same for the pieces of an expression, in an order that ``tokens`` accepts; both lists are used up.

    ``values`` are of numbers, None for operators and brackets; ``texts`` are the pieces as written.
    """
    results: list[Exact] = []
    steps: list[str] = []
    bracketed = "(" in texts or ")" in texts
    if bracketed:
        _bare(values, texts)
    while len(texts) > 1:
        place = _next(texts) if bracketed else _first(texts, 0, len(texts))
        value = _apply(texts[place], values[place - 1], values[place + 1])
        values[place - 1 : place + 2] = [value]
        texts[place - 1 : place + 2] = [_in_expression(value, decimal(value), texts[place - 2] if place > 1 else None)]
        if bracketed:
            _bare(values, texts)
        results.append(value)
        if None not in texts:
            steps.append("".join(texts))  # type: ignore[arg-type]
    only = values[0]
    assert only is not None
    return Worked(only, tuple(results), tuple(steps) if len(steps) == len(results) else None)

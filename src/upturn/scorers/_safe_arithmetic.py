"""Exact values of untrusted arithmetic expressions, fast and safe for any text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MOST_CHARACTERS = 1_000  # of one expression; longer ones are not worked out
_MOST_BITS = 4_096  # of a numerator or denominator on the way: 1,200 digits
_ROUNDED_FROM = 2  # decimal places: 10/3=3.33 is the usual form, 10/3=3 is wrong

_TOKEN = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+|\s+|.", re.ASCII | re.DOTALL)
_DIGITS, _SIGNS = frozenset("0123456789"), frozenset("-+*/()")
_BINDS = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3}
_AS_TYPED = str.maketrans("−–×·÷", "--**/")


class NotArithmetic(Exception):
    """The text has no value; the exception's text is the reason."""


@dataclass(frozen=True)
class Value:
    """The value of a text. ``number``: it is one number, not an expression; ``places`` after its point."""

    exact: Fraction
    number: bool
    places: int = 0

    def states(self, other: Fraction) -> bool:
        """Whether this is ``other``: exactly, or as one number rounded to its two or more decimal places."""
        if self.exact == other:
            return True
        if not self.number or self.places < _ROUNDED_FROM:
            return False
        return bool(2 * abs(self.exact - other) * 10**self.places <= 1)


def value(text: str) -> Value:
    """The value of + - * /, brackets, decimals, 1,000, $ and % (a hundredth). Raises NotArithmetic, never hangs.

    No recursion, no floating point, nothing executed; powers and exponents are not part of it.
    """
    if len(text) > MOST_CHARACTERS:
        raise NotArithmetic(f"longer than {MOST_CHARACTERS} characters")
    if not text.isascii():
        text = text.translate(_AS_TYPED)
    numbers: list[tuple[int, int]] = []
    waiting: list[str] = []
    operand, count, places = False, 0, 0  # operand: a value is just before this position
    for token in _TOKEN.findall(text):
        if token[-1] in _DIGITS or (len(token) > 1 and token[0] in _DIGITS):
            if operand:
                raise NotArithmetic("two numbers without an operator between them")
            whole, _, part = token.replace(",", "").partition(".")
            numbers.append((int(whole + part), 10 ** len(part)))
            operand, count, places = True, count + 1, len(part)
        elif token in _SIGNS:
            operand = _place(token, operand, numbers, waiting)
        elif token == "%":
            if not operand:
                raise NotArithmetic("% without a number before it")
            top, bottom = numbers[-1]
            numbers[-1] = top, bottom * 100
            places += 2
        elif token != "$" and not token.isspace():
            raise NotArithmetic(f"{token!r} is not arithmetic")
    if not operand:
        raise NotArithmetic("the expression ends too early" if text.strip() else "nothing is written")
    while waiting:
        if waiting[-1] == "(":
            raise NotArithmetic("a bracket is left open")
        _apply(waiting.pop(), numbers)
    top, bottom = numbers[0]
    alone = count == 1
    return Value(Fraction(top, bottom), alone, places if alone else 0)


def _place(sign: str, operand: bool, numbers: list[tuple[int, int]], waiting: list[str]) -> bool:
    """One operator or bracket of the shunting yard (Dijkstra 1961); whether a value precedes what follows."""
    if sign == "(":
        if operand:
            raise NotArithmetic("an operator is missing before a bracket")
        waiting.append(sign)
        return False
    if sign == ")":
        if not operand:  # before anything is applied: "(3+)" has an operator and one number
            raise NotArithmetic("a bracket closes too early")
        while waiting and waiting[-1] != "(":
            _apply(waiting.pop(), numbers)
        if not waiting:
            raise NotArithmetic("a bracket closes too early")
        waiting.pop()
        return True
    if not operand:
        if sign not in "+-" or (waiting and waiting[-1] == "negative"):
            raise NotArithmetic(f"{sign} without a number before it")
        if sign == "-":
            waiting.append("negative")
        return False
    while waiting and waiting[-1] != "(" and _BINDS[waiting[-1]] >= _BINDS[sign]:
        _apply(waiting.pop(), numbers)
    waiting.append(sign)
    return False


def _apply(sign: str, numbers: list[tuple[int, int]]) -> None:
    c, d = numbers.pop()
    if sign == "negative":
        numbers.append((-c, d))
        return
    a, b = numbers.pop()
    if sign == "+":
        top, bottom = a * d + c * b, b * d
    elif sign == "-":
        top, bottom = a * d - c * b, b * d
    elif sign == "*":
        top, bottom = a * c, b * d
    elif c == 0:
        raise NotArithmetic("a division by 0")
    else:
        top, bottom = (a * d, b * c) if c > 0 else (-a * d, -b * c)
    if top.bit_length() > _MOST_BITS or bottom.bit_length() > _MOST_BITS:
        raise NotArithmetic("the numbers grow too large")
    numbers.append((top, bottom))

"""Exact values of the numbers that end a worked answer."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MOST_CHARACTERS = 100_000  # of a text; longer ones are not read
_LONGEST = 500  # characters of one number; a longer one is not read

_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_AMOUNT = re.compile(
    rf"(?:(?P<sign>[+-])\s?)?(?:(?P<whole>[0-9]+)\s(?=[0-9]+\s?/))?(?P<top>{_NUMBER})(?:\s?/\s?(?P<bottom>{_NUMBER}))?"
)
_LEADS = re.compile(r"[\s=:]*")
_GOES_ON = re.compile(r"\s*[+*/=^>×÷]|.*[0-9]", re.DOTALL)  # an expression, or a second number
_PERCENT = re.compile(r"\s*(?:%|per\s?cents?\b)", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+")

_AS_TYPED = str.maketrans({"−": "-", "–": "-", "⁄": "/"} | dict.fromkeys("$€£¥₹*`", ""))
_GROUP_SPACE = re.compile(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")
_FRAC = re.compile(r"\\[dt]?frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm)\s*\{([^{}]*)\}")
_LATEX = re.compile(r"\\[!,;()\[\]$]")


@dataclass(frozen=True)
class Quantity:
    """A number, whether % followed it, and the first word after it, lower case and singular ("" where none)."""

    exact: Fraction
    percent: bool = False
    unit: str = ""


def quantity(text: str) -> Quantity | None:
    """The one number that the text states; None where it states none, or more than that.

    Read: 1,234,567 (comma in thousands, point for decimals), -5, $5, .5, 3/4, 1 1/2, ½, \\frac{3}{4}, 20%, and a word
    for a unit. Not read: expressions, exponents, a second number, words before the number.
    """
    text = _plain(text)
    start = _LEADS.match(text)
    found = _AMOUNT.match(text, start.end() if start else 0)
    if found is None or _GOES_ON.match(text, found.end()):
        return None
    return _read(found, text)


def last_quantity(text: str) -> Quantity | None:
    """The last number of a text, at any position; None where there is none."""
    text = _plain(text)
    last = None
    for last in _AMOUNT.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return None if last is None else _read(last, text)


def _plain(text: str) -> str:
    """The same without currency signs, emphasis and LaTeX, every minus and fraction in ASCII."""
    if "\\" in text or "{" in text:
        text = _FRAC.sub(r" \1/\2", text)
        text = _TEXT.sub(r" \1", text).replace("\\%", "%")
        text = _LATEX.sub("", text.replace("{,}", ","))
    if not text.isascii():
        text = "".join(f" {unicodedata.normalize('NFKC', c)}" if _is_vulgar(c) else c for c in text)
        text = _GROUP_SPACE.sub("", text)
    return text.translate(_AS_TYPED)


def _is_vulgar(character: str) -> bool:
    return unicodedata.decomposition(character).startswith("<fraction>")


def _read(found: re.Match[str], text: str) -> Quantity | None:
    if found.end() - found.start() > _LONGEST:
        return None
    top, bottom = _ratio(found["top"])
    if found["bottom"]:
        c, d = _ratio(found["bottom"])
        top, bottom = top * d + int(found["whole"] or "0") * c * bottom, bottom * c
        if bottom == 0:
            return None
    before = text[found.start() - 1] if found.start() else " "
    # in "9-3" and "t-3" the sign is an operator
    negative = found["sign"] == "-" and not (before.isalnum() or before in ")]}")
    percent = _PERCENT.match(text, found.end())
    after = text[percent.end() if percent else found.end() :].lstrip()[:100]
    word = _WORD.match(after)
    unit = word.group().lower().removesuffix("s") if word else ""
    return Quantity(Fraction(-top if negative else top, bottom), percent is not None, unit)


def _ratio(digits: str) -> tuple[int, int]:
    """Numerator and denominator, not reduced."""
    whole, _, part = digits.replace(",", "").partition(".")
    return int(whole + part), 10 ** len(part)

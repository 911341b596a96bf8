"""An exact verifier of the number that a worked answer ends in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar, Literal

from upturn.protocols import Scorer, Tools
from upturn.scorers._quantities import MOST_CHARACTERS, Quantity, last_quantity, quantity
from upturn.scorers._verdicts import RIGHT, Verdict, quoted, unscored, verified, wrong
from upturn.types import Samples, Scores

_ANSWER_IS = re.compile(r"\banswer\s*(?:is|:|=)\s*:?\s*", re.IGNORECASE)
_SENTENCE_ENDS = re.compile(r"\n|[.;!?](?=\s|$)")
Fallback = Literal["boxed", "answer_is", "last_number"]


@dataclass(frozen=True)
class FinalAnswer(Scorer):
    """Right (1) where the final number of a completion is the prompt's answer, exactly; wrong (0) elsewhere.

    The conventions of GSM8K (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems"): a worked answer ends
    in ``#### 18``. The first ``####`` whose line states a number counts: text after it does not.
    Numbers are compared as fractions, without rounding: 1,200 = 1200.00 = $1,200; 3/4 = .75 = \\frac{3}{4};
    1 1/2 = 1.5; 3.33 is not 10/3. Comma separates thousands, point decimals. Ignored: currency signs, emphasis, words
    after the number, unless the prompt's own answer has a unit; then a completion that states another is wrong
    (nothing is converted). A line that states two numbers, or an expression, states none.

    Unscored (NaN): a prompt without the field, or whose answer is no number.

    answer    the field of the prompt that holds the number, or a worked solution that ends in the marker
    marker    the text before the final number
    fallback  where no marker leads to a number, tried in order: ``boxed``, the last \\boxed{…}; ``answer_is``, after
              the last "answer is" or "answer:"; ``last_number``, the last of the text. Empty: such a text is wrong
    percent   ``unit``: 20% is 20, as GSM8K's answers have it; ``hundredth``: 20% is 0.2
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    verifies: ClassVar[bool] = True

    answer: str = "answer"
    marker: str = "####"
    fallback: list[Fallback] = field(default_factory=list)  # GSM8K's own extraction has none
    percent: Literal["unit", "hundredth"] = "unit"

    def __post_init__(self) -> None:
        if not self.marker.strip():
            raise ValueError("marker must hold a character that is no space")
        if len(set(self.fallback)) < len(self.fallback):
            raise ValueError("fallback names one way twice")

    def score(self, samples: Samples, tools: Tools | None = None) -> Scores:
        """(N,) 1.0, 0.0 or NaN, with an explanation for each. Raises UserError on samples that are not text."""
        truths: dict[str, Quantity | None] = {}

        def judge(answer: str, content: str) -> Verdict:
            if answer not in truths:
                truths[answer] = self._truth(answer)
            return self._verdict(answer, truths[answer], content)

        return verified("final_answer", samples, lambda prompt: prompt.fields.get(self.answer, ""), judge)

    def _truth(self, answer: str) -> Quantity | None:
        return self._marked(answer) if self.marker in answer else quantity(answer)

    def _verdict(self, answer: str, truth: Quantity | None, content: str) -> Verdict:
        if not answer.strip():
            return unscored(f"the prompt has no field '{self.answer}'")
        if truth is None:
            return unscored(f"the prompt's answer, {quoted(answer)}, is no number; 'exact_match' compares texts")
        if len(content) > MOST_CHARACTERS:
            return wrong(f"longer than {MOST_CHARACTERS} characters")
        found = self._stated(content)
        if found is None:
            return wrong(self._why_none(content))
        if self._value(found) != self._value(truth):
            return wrong(f"it says {_short(self._value(found))}, not {_short(self._value(truth))}")
        if truth.unit and found.unit and found.unit != truth.unit:
            return wrong(f"the number is right, the unit is '{found.unit}', not '{truth.unit}'")
        return RIGHT

    def _value(self, found: Quantity) -> Fraction:
        return found.exact / 100 if found.percent and self.percent == "hundredth" else found.exact

    def _stated(self, content: str) -> Quantity | None:
        found = self._marked(content)
        for way in self.fallback:
            if found is None:
                found = _WAYS[way](content)
        return found

    def _marked(self, text: str) -> Quantity | None:
        for part in text.split(self.marker)[1:]:
            found = quantity(part.split("\n", 1)[0])
            if found is not None:
                return found
        return None

    def _why_none(self, content: str) -> str:
        if self.marker in content:
            line = content.split(self.marker, 1)[1].split("\n", 1)[0].strip()
            why = f"after {self.marker} follows {quoted(line)}, which is not one number"
        else:
            why = f"{self.marker} is not there"
        return f"{why}; nor is there a number by {', '.join(self.fallback)}" if self.fallback else why


def _boxed(text: str) -> Quantity | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    inside = start + len("\\boxed{")
    depth = 1
    for place in range(inside, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return quantity(text[inside:place])
    return None


def _answer_is(text: str) -> Quantity | None:
    ends = [found.end() for found in _ANSWER_IS.finditer(text)]
    return quantity(_SENTENCE_ENDS.split(text[ends[-1] :], maxsplit=1)[0]) if ends else None


_WAYS = {"boxed": _boxed, "answer_is": _answer_is, "last_number": last_quantity}


def _short(exact: Fraction) -> str:
    big = max(exact.numerator.bit_length(), exact.denominator.bit_length()) > 64
    return "a very long number" if big else str(exact)

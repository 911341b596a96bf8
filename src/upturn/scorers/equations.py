"""An exact verifier of worked arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Scorer, Tools
from upturn.scorers._safe_arithmetic import NotArithmetic, Value, value
from upturn.types import Samples, Scores, objects

_MOST_CHARACTERS = 10_000  # of a completion; a longer one is wrong without being read
_QUOTED = 40  # characters of a step in an explanation


@dataclass(frozen=True)
class Equations(Scorer):
    """Right (1) where every step holds exactly and the last is the answer; wrong (0) elsewhere. No model is used.

    The prompt is an expression and "=", the completion the expression as it is worked out, step by step, joined by "=":
    ``12+7*3=`` and ``12+21=33``. All steps must have the prompt's value, in fractions, without rounding, and the
    last must be a single number. One number with two or more decimal places may be the value rounded to those places
    (10/3=3.33). $ and thousands separators are ignored, % is a hundredth.

    Unscored (NaN) where the verifier cannot decide: a prompt that is not arithmetic, or whose ``fields["answer"]`` is
    another value than its own.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    verifies: ClassVar[bool] = True

    answer: str = "answer"  # the field of the prompt that holds the final number, where there is one

    def score(self, samples: Samples, tools: Tools | None = None) -> Scores:
        """(N,) 1.0, 0.0 or NaN, with an explanation for each. Raises UserError on samples that are not text."""
        if samples.kind != "text":
            raise UserError(f"equations verifies text, and these samples are {samples.kind}", where="score")
        reader = _Reader()
        truths: dict[tuple[str, str], Fraction | str] = {}
        seen: dict[tuple[str, str, str], tuple[float, str]] = {}
        values = np.empty(len(samples), dtype=np.float64)
        explanations = []
        for row, (prompt, content) in enumerate(zip(samples.prompts, samples.content, strict=True)):
            question = (prompt.text, prompt.fields.get(self.answer, ""))
            verdict = seen.get((*question, content))
            if verdict is None:
                if question not in truths:
                    truths[question] = reader.truth(*question)
                verdict = seen[(*question, content)] = reader.verdict(prompt.text, truths[question], content)
            values[row] = verdict[0]
            explanations.append(verdict[1])
        return Scores("equations", values, objects(explanations))


@dataclass
class _Reader:
    """Reads each different expression once: candidates of a prompt share most of their steps."""

    known: dict[str, Value | str] = field(default_factory=dict)

    def read(self, text: str) -> Value | str:
        """The value, or why there is none."""
        found = self.known.get(text)
        if found is None:
            try:
                found = value(text)
            except NotArithmetic as reason:
                found = str(reason)
            self.known[text] = found
        return found

    def truth(self, prompt: str, answer: str) -> Fraction | str:
        """The value that the completion must reach, or why it is not known."""
        read = self.read(prompt.strip().removesuffix("="))
        if isinstance(read, str):
            return f"unscored: the prompt has no value: {read}"
        if answer:
            stated = self.read(answer)
            if isinstance(stated, str) or not stated.states(read.exact):
                return f"unscored: the prompt is {_short(read.exact)}, its answer says {answer[:_QUOTED]}"
        return read.exact

    def verdict(self, prompt: str, truth: Fraction | str, content: str) -> tuple[float, str]:
        if isinstance(truth, str):
            return float("nan"), truth
        if len(content) > _MOST_CHARACTERS:
            return 0.0, f"wrong: longer than {_MOST_CHARACTERS} characters"
        if not prompt.rstrip().endswith("="):
            content = content.lstrip().removeprefix("=")
        worked_out = False
        steps = content.split("=")
        for number, step in enumerate(steps, 1):
            read = self.read(step)
            if isinstance(read, str):
                return 0.0, f"wrong: step {number} has no value: {read}"
            if not read.states(truth):
                quoted = step.strip()[:_QUOTED]
                return 0.0, f"wrong: step {number}, {quoted}, is {_short(read.exact)}, not {_short(truth)}"
            worked_out = read.number
        if not worked_out:
            return 0.0, f"wrong: it ends in {steps[-1].strip()[:_QUOTED]}, which is not worked out"
        return 1.0, "right"


def _short(exact: Fraction) -> str:
    big = max(exact.numerator.bit_length(), exact.denominator.bit_length()) > 64
    return "a very long number" if big else str(exact)

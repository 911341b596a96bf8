"""A verifier by regular expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from upturn.protocols import Scorer, Tools
from upturn.scorers import _patterns
from upturn.scorers._verdicts import RIGHT, Verdict, quoted, unscored, verified, wrong
from upturn.types import Samples, Scores


@dataclass(frozen=True)
class RegexMatch(Scorer):
    """Right (1) where the completion matches a regular expression, the recipe's or the prompt's own; else wrong (0).

    The language is that of the ``regex`` package, a superset of Python's: (?i) ignores case, (?s) lets the dot match
    line breaks. Space at the ends of the completion is ignored.

    Unscored (NaN): a prompt without the field where the recipe gives no pattern, a field that is no regular expression,
    and a match that takes longer than ``seconds`` (patterns like (a+)+b: the verifier cannot decide).

    pattern  one for all prompts; null: each prompt's own, from its field ``field``
    extent   ``whole``: the pattern must match all of the completion; ``part``: anywhere in it
    seconds  of one match
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    verifies: ClassVar[bool] = True

    pattern: str | None = None
    field: str = "pattern"
    extent: Literal["whole", "part"] = "whole"  # a part can be right by chance, or by naming every answer
    seconds: float = _patterns.SECONDS

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ValueError(f"seconds must be above 0, not {self.seconds}")
        if self.pattern is not None:
            try:
                _patterns.compiled(self.pattern)
            except _patterns.BadPattern as error:
                raise ValueError(str(error)) from error

    def score(self, samples: Samples, tools: Tools | None = None) -> Scores:
        """(N,) 1.0, 0.0 or NaN, with an explanation for each. Raises UserError on samples that are not text."""

        def judge(pattern: str, content: str) -> Verdict:
            if not pattern:
                return unscored(f"the prompt has no field '{self.field}'")
            try:
                matches = _patterns.found(pattern, content.strip(), self.extent == "whole", self.seconds)
            except (_patterns.BadPattern, _patterns.TookTooLong) as error:
                return unscored(str(error))
            return RIGHT if matches else wrong(f"{quoted(content)} does not match {quoted(pattern)}")

        if self.pattern is not None:
            given = self.pattern
            return verified("regex_match", samples, lambda prompt: given, judge)
        return verified("regex_match", samples, lambda prompt: prompt.fields.get(self.field, ""), judge)

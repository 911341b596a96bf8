"""An exact verifier of short answers that are texts."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from upturn.protocols import Scorer, Tools
from upturn.scorers._verdicts import RIGHT, Verdict, quoted, unscored, verified, wrong
from upturn.types import Prompt, Samples, Scores

Ignorable = Literal["space", "case", "punctuation", "articles"]
_MOST_CHARACTERS = 100_000  # of a completion; a longer one is wrong without being read
_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)


@dataclass(frozen=True)
class ExactMatch(Scorer):
    """Right (1) where the completion is the prompt's answer, character for character save what is ignored; else wrong.

    Both sides are brought to one Unicode form (NFC) first. With all four of ``ignore`` this is the exact match of SQuAD
    (Rajpurkar et al. 2016, section 6.1), for every script's punctuation.

    Unscored (NaN): a prompt without the field, or whose answer holds nothing but what is ignored.

    answer   the field of the prompt that holds the right text
    aliases  a field that holds further right texts as a JSON list; null: there is none
    ignore   ``space``: at the ends, and how much of it elsewhere; ``case``; ``punctuation``; English ``articles``
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    verifies: ClassVar[bool] = True

    answer: str = "answer"
    aliases: str | None = None
    ignore: list[Ignorable] = field(default_factory=lambda: ["space"])  # a sampled text often ends in a line break

    def score(self, samples: Samples, tools: Tools | None = None) -> Scores:
        """(N,) 1.0, 0.0 or NaN, with an explanation for each. Raises UserError on samples that are not text."""
        return verified("exact_match", samples, self._answers, self._verdict)

    def _answers(self, prompt: Prompt) -> tuple[str, str]:
        return prompt.fields.get(self.answer, ""), prompt.fields.get(self.aliases or "", "")

    def _verdict(self, answers: tuple[str, str], content: str) -> Verdict:
        answer, more = answers
        aliases = _texts(more) if self.aliases else []
        if aliases is None:
            return unscored(f"the field '{self.aliases}' is not a JSON list of texts: {quoted(more)}")
        right = {self._plain(text) for text in (answer, *aliases)} - {""}
        if not right:
            why = f"nothing of {quoted(answer)} counts" if answer else f"the prompt has no field '{self.answer}'"
            return unscored(why)
        if len(content) > _MOST_CHARACTERS:
            return wrong(f"longer than {_MOST_CHARACTERS} characters")
        if self._plain(content) in right:
            return RIGHT
        others = f" or {len(right) - 1} more" if len(right) > 1 else ""
        return wrong(f"it is {quoted(content)}, not {quoted(answer)}{others}")

    def _plain(self, text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        if "case" in self.ignore:
            text = unicodedata.normalize("NFC", text.casefold())
        if "punctuation" in self.ignore:
            text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
        if "articles" in self.ignore:
            text = _ARTICLES.sub(" ", text)
        return " ".join(text.split()) if "space" in self.ignore else text


def _texts(written: str) -> list[str] | None:
    """The texts of a JSON list; none where nothing is written, None where it is something else."""
    if not written:
        return []
    try:
        found = json.loads(written)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else None

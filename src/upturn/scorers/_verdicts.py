"""The common part of the text verifiers: one verdict for each distinct question and completion, with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np

from upturn.errors import UserError
from upturn.types import Prompt, Samples, Scores, objects

Verdict = tuple[float, str]
Question = TypeVar("Question", bound=Hashable)

RIGHT: Verdict = (1.0, "right")
_QUOTED = 60  # characters of a quoted text in an explanation


def wrong(why: str) -> Verdict:
    return 0.0, f"wrong: {why}"


def unscored(why: str) -> Verdict:
    """Neither right nor wrong: the verifier cannot decide."""
    return math.nan, f"unscored: {why}"


def quoted(text: str) -> str:
    """The text in quotes on one line, cut to a length that fits an explanation."""
    return repr(text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…")


def check_text(name: str, samples: Samples) -> None:
    """Raises UserError on samples that are not text."""
    if samples.kind != "text":
        raise UserError(
            f"'{name}' verifies text, and these samples are {samples.kind}", where=f"scorer '{name}'",
            fix="Use 'classifier' for images, 'closeness' for points.",
        )


def verified(
    name: str, samples: Samples, ask: Callable[[Prompt], Question], judge: Callable[[Question, str], Verdict]
) -> Scores:
    """(N,) verdicts: ``judge(ask(prompt), completion)``, called once for each distinct pair.

    Raises UserError on samples that are not text.
    """
    check_text(name, samples)
    seen: dict[tuple[Question, str], Verdict] = {}
    values = np.empty(len(samples), dtype=np.float64)
    explanations = []
    for row, (prompt, content) in enumerate(zip(samples.prompts, samples.content, strict=True)):
        question = ask(prompt)
        verdict = seen.get((question, content))
        if verdict is None:
            verdict = seen[question, content] = judge(question, content)
        values[row] = verdict[0]
        explanations.append(verdict[1])
    return Scores(name, values, objects(explanations))

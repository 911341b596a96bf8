"""A number from 1 to 10 for each candidate, by one or several attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn.annotation.db.validation import Answer, Refused
from upturn.annotation.page_parts import Button, OneCandidate, ScaleControl, VoteForm
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.vote_mode import AgreementBy, Choice, Feedback, VoteMode
from upturn.types import BEST, WORST, Array


@dataclass(frozen=True)
class Rate(VoteMode):
    """Annotators rate one candidate from 1 to 10 by each attribute; "useless" counts as the lowest number."""

    title: ClassVar[str] = "rate from 1 to 10"
    instructions: ClassVar[str] = "How good is this?"
    candidates: ClassVar[int | None] = 1
    feedback: ClassVar[Feedback] = "rating"
    agreement_by: ClassVar[AgreementBy] = "number"
    bad: ClassVar[Button] = Button("Useless", "b", "useless: no number fits", "bad")
    tie: ClassVar[Button] = Button("Cannot tell", "t", "you cannot tell", "tie")

    def form(self, count: int, attributes: tuple[str, ...]) -> VoteForm:
        parts = (OneCandidate(), ScaleControl("score", "1 bad", "10 could not be better"))
        if len(attributes) == 1:
            return VoteForm(parts, keys=((("1", "–", "9", "0"), "rate, 0 is 10"),))
        save = Button("Save", "enter", "save", shown_key="↵", main=True, check=True)
        return VoteForm(parts, (save,), (
            (("1", "–", "9", "0"), "rate the marked line, 0 is 10, and go to the next"), (("↑", "↓"), "another line"),
        ))

    def from_form(self, fields: Mapping[str, str], count: int, attributes: tuple[str, ...]) -> Choice:
        given = {name: fields.get(f"score{place}", "") for place, name in enumerate(attributes)}
        try:
            return Choice(scores={name: (float(text),) for name, text in given.items() if text})
        except ValueError:
            raise Refused("wrong", "a rating is a number") from None

    def ranks_fit(self, ranks: tuple[int, ...], count: int) -> bool:
        return not any(ranks)

    def check_choice(self, answer: Answer, count: int, attributes: tuple[str, ...]) -> None:
        wanted, scores = set(attributes), answer.scores
        if set(scores) != wanted or any(len(values) != count for values in scores.values()):
            raise Refused("wrong", f"a rating gives a number for each of {', '.join(sorted(wanted))}")
        if not all(WORST <= value <= BEST for values in scores.values() for value in values):
            raise Refused("wrong", f"a rating lies between {WORST:g} and {BEST:g}")
        if answer.strength is not None:
            raise Refused("wrong", f"'{self.name}' is answered without a strength")
        self.check_ranks(answer, count)

    def simulate(self, utility: Array, by: SimulatedAnnotator, attributes: tuple[str, ...]) -> dict[str, Any]:
        rating = float(np.clip(round(1 + 9 / (1 + np.exp(-np.clip(utility[0], -50, 50)))), WORST, BEST))
        return {"scores": dict.fromkeys(attributes, rating)}

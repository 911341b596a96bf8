"""Two candidates, which is better and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from upturn.annotation.db.validation import Answer, Refused
from upturn.annotation.page_parts import Button, Cards, Options, VoteForm
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.vote_mode import AgreementBy, Choice, VoteMode
from upturn.types import Array

STRENGTHS = (1.0, 2 / 3, 1 / 3)  # much better, better, slightly better; about the same is 0, equal ranks
_SIDES = (
    ("a3", "1", "A much better"), ("a2", "2", "A better"), ("a1", "3", "A slightly"), ("same", "4", "About the same"),
    ("b1", "5", "B slightly"), ("b2", "6", "B better"), ("b3", "7", "B much better"),
)


@dataclass(frozen=True)
class Compare(VoteMode):
    """Annotators compare two candidates on a scale of seven: ranks (1, 2) or (2, 1) with a strength, or (1, 1)."""

    title: ClassVar[str] = "compare two"
    instructions: ClassVar[str] = "Which is better, and by how much?"
    candidates: ClassVar[int | None] = 2
    agreement_by: ClassVar[AgreementBy] = "side"
    bad: ClassVar[Button] = Button("Both bad", "0", "both are bad", "bad")
    tie: ClassVar[Button] = Button("Cannot tell", "t", "you cannot tell", "tie")

    def form(self, count: int, attributes: tuple[str, ...]) -> VoteForm:
        return VoteForm((Cards(letters=True), Options("side", "Which is better", _SIDES)), keys=(
            (("1", "2", "3"), "A is much better, better, slightly better"), (("4",), "about the same"),
            (("5", "6", "7"), "B is slightly better, better, much better"),
        ))

    def from_form(self, fields: Mapping[str, str], count: int, attributes: tuple[str, ...]) -> Choice:
        """``a3``: the first is much better; ``b1``: the second slightly; ``same``: about the same."""
        side = fields.get("side", "")
        if side == "same":
            return Choice((1, 1), strength=0.0)
        if side not in {value for value, _, _ in _SIDES}:
            raise Refused("wrong", "choose which is better")
        return Choice((1, 2) if side[0] == "a" else (2, 1), strength=STRENGTHS[3 - int(side[1])])

    def ranks_fit(self, ranks: tuple[int, ...], count: int) -> bool:
        return len(ranks) == count and ranks in ((1, 0), (0, 1), (1, 2), (2, 1), (1, 1))

    def check_choice(self, answer: Answer, count: int, attributes: tuple[str, ...]) -> None:
        if answer.scores:
            raise Refused("wrong", f"'{self.name}' is answered without numbers")
        if answer.strength is not None and not 0 <= answer.strength <= 1:
            raise Refused("wrong", "a strength lies between 0 and 1")
        self.check_ranks(answer, count)
        if answer.strength is None or (answer.strength == 0) != (tuple(answer.ranks) == (1, 1)):
            raise Refused("wrong", "two that are compared need a strength, 0 where they are about the same")

    def simulate(self, utility: Array, by: SimulatedAnnotator, attributes: tuple[str, ...]) -> dict[str, Any]:
        gap = abs(float(utility[0] - utility[1]))
        if gap <= by.ties:
            return {"ranks": [1, 1], "strength": 0.0}
        scale = max(by.temperature, 1e-9)
        strength = STRENGTHS[0] if gap > 2 * scale else STRENGTHS[1] if gap > scale else STRENGTHS[2]
        return {"ranks": [1, 2] if utility[0] >= utility[1] else [2, 1], "strength": strength}

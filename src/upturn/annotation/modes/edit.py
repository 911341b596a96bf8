"""A text, to be corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from upturn.annotation.page_parts import Button, TextEditor, VoteForm
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.vote_mode import CONTENT, AgreementBy, Choice, Feedback, VoteMode
from upturn.types import Array


@dataclass(frozen=True)
class Edit(VoteMode):
    """Annotators correct a text, or say that it is right: the correction becomes a training example."""

    title: ClassVar[str] = "correct the text"
    instructions: ClassVar[str] = "Correct this text"
    candidates: ClassVar[int | None] = 1
    content: ClassVar[frozenset[str]] = CONTENT - {"image"}
    feedback: ClassVar[Feedback] = "correction"
    agreement_by: ClassVar[AgreementBy] = ""
    bad: ClassVar[Button] = Button("Cannot be fixed", "0", "the text cannot be fixed", "bad")
    tie: ClassVar[Button] = Button("Cannot tell", "t", "you cannot tell", "tie")

    def form(self, count: int, attributes: tuple[str, ...]) -> VoteForm:
        save = Button("Save my text", "ctrl+enter", "save your text", "edit", "Ctrl ↵", main=True, check=True)
        right = Button("Right as it is", "g", "the text is right as it is", "said", check=True)
        return VoteForm((TextEditor("The model's text, for you to correct"),), (save, right),
                        ((("E",), "into the text"), (("Esc",), "out of it again")))

    def from_form(self, fields: Mapping[str, str], count: int, attributes: tuple[str, ...]) -> Choice:
        return Choice()

    def ranks_fit(self, ranks: tuple[int, ...], count: int) -> bool:
        return ranks in ((), (1,))

    def simulate(self, utility: Array, by: SimulatedAnnotator, attributes: tuple[str, ...]) -> dict[str, Any]:
        """Simulated annotators leave the text as it is."""
        return {"action": "said", "ranks": [1]}

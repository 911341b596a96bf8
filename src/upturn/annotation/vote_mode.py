"""What a vote mode declares: the one base class of the files in ``modes/``, and their lookup by name.

A mode is one way to ask annotators about candidates. Everything that other code needs to know about it is declared
here, so that a new mode is one file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np

from upturn.annotation.db.validation import LONGEST_TEXT, Answer, Refused
from upturn.annotation.page_parts import SKIP, Button, VoteForm
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.config import components
from upturn.types import Array

KIND = "vote_mode"
Feedback = Literal["preference", "rating", "correction"]
AgreementBy = Literal["", "choice", "side", "order", "number"]
CONTENT = frozenset({"image", "text", "turns", "points"})


@dataclass(frozen=True)
class Choice:
    """What a form answers about the candidates, by position on the screen.

    ranks     1 is best, equal is a tie, 0 nothing is known;  () where the mode gives none
    scores    attribute -> a number for each candidate
    strength  in [0, 1], how much better the first rank is
    """

    ranks: tuple[int, ...] = ()
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    strength: float | None = None


@dataclass(frozen=True)
class VoteMode(ABC):
    """One way to ask annotators.

    title         in lists and reports;  instructions  the heading of its page
    candidates    how many a task has; None: as many as the poll is configured to display
    content       kinds of content that it can ask about
    feedback      what votes become. preference: each is a group of its candidates with ranks. rating: the numbers of a
                  prompt's candidates rank them. correction: the text replaces the candidate
    agreement_by  what agreement between annotators compares: the candidate that was chosen, the side of two with its
                  strength, the order of all, or the number; "": it is not measured
    bad, tie      the buttons for "all candidates are bad" and for "cannot tell"
    """

    title: ClassVar[str]
    instructions: ClassVar[str]
    candidates: ClassVar[int | None] = None
    content: ClassVar[frozenset[str]] = CONTENT
    feedback: ClassVar[Feedback] = "preference"
    agreement_by: ClassVar[AgreementBy] = "order"
    bad: ClassVar[Button] = Button("All bad", "0", "all are bad", "bad")
    tie: ClassVar[Button] = Button("Tie / cannot tell", "t", "a tie, or you cannot tell", "tie")

    @property
    def name(self) -> str:
        """The file's name."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def compares(self) -> bool:
        """Whether a task has several candidates; only then can one be known to be best."""
        return self.candidates != 1

    @abstractmethod
    def form(self, count: int, attributes: tuple[str, ...]) -> VoteForm:
        """The form of a task of ``count`` candidates; ``bad``, ``tie``, skip and undo are added to it."""

    @abstractmethod
    def from_form(self, fields: Mapping[str, str], count: int, attributes: tuple[str, ...]) -> Choice:
        """What the fields of the form answer. Raises Refused where they do not answer it."""

    @abstractmethod
    def simulate(self, utility: Array, by: SimulatedAnnotator, attributes: tuple[str, ...]) -> dict[str, Any]:
        """The body of POST /api/votes of a simulated annotator whose utility of each candidate is (K,)."""

    @abstractmethod
    def ranks_fit(self, ranks: tuple[int, ...], count: int) -> bool:
        """Whether ranks are an answer of this mode about ``count`` candidates."""

    def check(self, answer: Answer, count: int, attributes: tuple[str, ...]) -> None:
        """Refused where an answer does not fit the mode and its candidates."""
        if answer.action == "edit" and self.feedback != "correction":
            raise Refused("wrong", f"'{self.name}' is answered without a text")
        if answer.action != "edit" and answer.text:
            raise Refused("wrong", "a text is sent only where one is corrected")
        if answer.action == "edit" and not 0 < len(answer.text.strip()) <= LONGEST_TEXT:
            raise Refused("wrong", f"a corrected text has 1 to {LONGEST_TEXT} characters")
        if answer.action != "said" and (any(answer.ranks) or answer.scores or answer.strength is not None):
            raise Refused("wrong", f"'{answer.action}' says nothing of single candidates")
        if answer.action == "said":
            self.check_choice(answer, count, attributes)

    def check_choice(self, answer: Answer, count: int, attributes: tuple[str, ...]) -> None:
        """Refused where ranks, scores or strength do not fit; a mode with scores or strengths replaces it."""
        if answer.scores:
            raise Refused("wrong", f"'{self.name}' is answered without numbers")
        if answer.strength is not None:
            raise Refused("wrong", f"'{self.name}' is answered without a strength")
        self.check_ranks(answer, count)

    def check_ranks(self, answer: Answer, count: int) -> None:
        if not self.ranks_fit(tuple(answer.ranks), count):
            raise Refused("wrong", f"these ranks do not answer a '{self.name}' of {count}")

    def buttons(self, form: VoteForm) -> tuple[Button, ...]:
        """All buttons of the page, but undo, in order."""
        return (*form.buttons, self.bad, self.tie, SKIP)


@cache
def mode_named(name: str, where: str = "") -> VoteMode:
    """The mode of a name. UserError, naming ``where`` it was asked for, where there is none."""
    found = components.make(KIND, name, where)
    assert isinstance(found, VoteMode), f"{name} is no VoteMode"
    return found


def gives(modes: Array, feedback: Feedback) -> Array:
    """(N,) bool: the rows whose mode gives this kind of feedback. Names of modes that are not installed give none."""
    known = set(components.names(KIND))
    names, rows = np.unique(modes.astype(str), return_inverse=True)
    fits = [(name in known or ":" in name) and mode_named(name).feedback == feedback for name in names.tolist()]
    found: Array = np.array(fits, dtype=bool)[rows.reshape(-1)]
    return found


def measured_modes(modes: Array) -> dict[str, AgreementBy]:
    """By name, the modes among these whose agreement is measured, and by what."""
    known = set(components.names(KIND))
    found = {name: mode_named(name) for name in sorted(set(modes.tolist())) if name in known or ":" in name}
    return {name: mode.agreement_by for name, mode in found.items() if mode.agreement_by}


def picked(position: int, count: int) -> tuple[int, ...]:
    """The ranks of a pick; Refused where there is no such position."""
    if not 1 <= position <= count:
        raise Refused("wrong", f"positions go from 1 to {count}")
    return tuple(int(place == position) for place in range(1, count + 1))


def whole_number(fields: Mapping[str, str], name: str) -> int:
    """A field as a number, 0 where it is absent. Refused where it is no whole number."""
    text = fields.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 4) and text:
        raise Refused("wrong", f"'{name}' is no whole number")
    return int(text or 0)

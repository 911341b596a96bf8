"""The best of several candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn.annotation.page_parts import Cards, VoteForm
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.vote_mode import AgreementBy, Choice, VoteMode, picked, whole_number
from upturn.types import Array


@dataclass(frozen=True)
class Pick(VoteMode):
    """Annotators pick the best candidate: rank 1, nothing is known of the order of the others (Luce 1959)."""

    title: ClassVar[str] = "pick the best"
    instructions: ClassVar[str] = "Which one do you want?"
    agreement_by: ClassVar[AgreementBy] = "choice"

    def form(self, count: int, attributes: tuple[str, ...]) -> VoteForm:
        return VoteForm((Cards(submit="pick", label="Pick"),), keys=((("1", "–", str(count)), "pick"),))

    def from_form(self, fields: Mapping[str, str], count: int, attributes: tuple[str, ...]) -> Choice:
        return Choice(picked(whole_number(fields, "pick"), count))

    def ranks_fit(self, ranks: tuple[int, ...], count: int) -> bool:
        return sorted(ranks) == [0] * (count - 1) + [1]

    def simulate(self, utility: Array, by: SimulatedAnnotator, attributes: tuple[str, ...]) -> dict[str, Any]:
        best = int(np.argmax(utility))
        tied = np.flatnonzero(utility[best] - utility <= by.ties)
        return {"action": "tie"} if len(tied) > 1 else {"pick": best + 1}

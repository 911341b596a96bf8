"""All candidates in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from upturn.annotation.page_parts import Button, RankingControl, VoteForm
from upturn.annotation.simulated_annotator import SimulatedAnnotator
from upturn.annotation.vote_mode import Choice, VoteMode, whole_number
from upturn.types import Array


@dataclass(frozen=True)
class Rank(VoteMode):
    """Annotators order all candidates; equal ranks are ties (Plackett 1975)."""

    title: ClassVar[str] = "put in order"
    instructions: ClassVar[str] = "Put them in order, the best first"

    def form(self, count: int, attributes: tuple[str, ...]) -> VoteForm:
        save = Button("Save this order", "enter", "save the order", shown_key="↵", main=True, check=True)
        return VoteForm((RankingControl("rank"),), (save,), (
            (("1", "–", str(count)), "the best, then the next best, …"), (("Tab",), "to one of them, then"),
            (("↑", "↓"), "move it"),
        ))

    def from_form(self, fields: Mapping[str, str], count: int, attributes: tuple[str, ...]) -> Choice:
        return Choice(without_gaps([whole_number(fields, f"rank{place}") for place in range(count)]))

    def ranks_fit(self, ranks: tuple[int, ...], count: int) -> bool:
        return len(ranks) == count and min(ranks, default=0) == 1 and max(ranks) <= count

    def simulate(self, utility: Array, by: SimulatedAnnotator, attributes: tuple[str, ...]) -> dict[str, Any]:
        ranks = np.empty(len(utility), dtype=np.int64)
        ranks[np.argsort(-utility, kind="stable")] = np.arange(1, len(utility) + 1)
        return {"ranks": ranks.tolist()}


def without_gaps(ranks: Sequence[int]) -> tuple[int, ...]:
    """After two that are tied for the first place comes the second."""
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)), start=1)}
    return tuple(places[rank] for rank in ranks)

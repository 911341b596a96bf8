"""Keeps the candidate of each prompt that annotators chose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from upturn.curators._helpers import ranks_within, row_uniform, selection, sizes_within
from upturn.errors import UserError
from upturn.protocols import Curator, Tools
from upturn.types import Array, Samples, Selection, objects

_WHY = {"": "nobody voted", "tie": "tied", "bad": "all bad", "corrected": "corrected"}


@dataclass
class Picked(Curator):
    """The candidate that annotators chose, one of each prompt; the others are dropped, each with its reason.

    A pick of K at temperature 1 is what ``choice`` draws: kept with density p_t * H (Ferbach et al., NeurIPS 2024,
    section 2), H from the annotators' preferences; no other curator may choose among candidates after it. Among
    candidates that were chosen equally often one is drawn, by key. Of a tie, and of candidates that are all bad,
    nothing is kept. In the mode "edit" texts marked right are kept; a corrected text is replaced by its correction.

    Reads the fields "vote" and "rank", which a round with votes adds. Rewards are not read.
    """

    selects = "votes"
    among_candidates = True
    law = "odds"

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """Raises UserError where the samples have no votes."""
        if not {"vote", "rank"} <= samples.fields.keys():
            raise UserError("these samples have no votes", where="curator 'picked'",
                            fix="Add 'people:' to the rounds.")
        word, rank = samples.fields["vote"].astype(str), np.asarray(samples.fields["rank"], dtype=np.int64)
        chosen = np.isin(word, ("winner", "right")) & (rank == 1)
        even = np.flatnonzero((word == "even") & (rank == 1))
        first = ranks_within(samples.group[even], np.zeros(len(even)), row_uniform(samples, key)[even]) == 1
        kept = chosen.copy()
        kept[even[first]] = True
        voted = np.flatnonzero(word != "")
        size = np.zeros(len(samples), dtype=np.int64)
        size[voted] = sizes_within(samples.group[voted])
        reasons = objects([
            f"picked: {_WHY.get(vote) or f'another of {count} was picked'}"
            for vote, count in zip(word.tolist(), size.tolist(), strict=True)
        ])
        return selection("picked", kept, reasons)

"""What people chose of each prompt's candidates."""

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
    """The candidate that people chose, one of each prompt; the others are dropped, each with its reason.

    A pick of K at temperature 1 is what ``choice`` draws: kept with density p_t * H (Ferbach et al., NeurIPS 2024,
    section 2), H from the people's own taste; nothing else is to choose on top of it. Candidates that were chosen
    equally often are drawn among, by key. Where people say that they tie, or are all bad, nothing is kept. Of texts
    that people edit: what is right as it is; a corrected one is replaced by its correction.

    Reads the fields "vote" and "rank", which a round that asks people adds. Rewards are not looked at.
    """

    selects = "votes"
    among_candidates = True
    law = "odds"

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """UserError where nobody was asked."""
        if not {"vote", "rank"} <= samples.fields.keys():
            raise UserError("nobody was asked about these samples", where="curator 'picked'",
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
            f"picked: {_WHY.get(said) or f'another of {count} was picked'}"
            for said, count in zip(word.tolist(), size.tolist(), strict=True)
        ])
        return selection("picked", kept, reasons)

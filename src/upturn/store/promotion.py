"""The incumbent of a run: the newest round that the gate promoted."""

from __future__ import annotations

from collections.abc import Mapping

PROMOTED, REJECTED, SKIPPED = "promoted", "rejected", "skipped"


def newest_promoted(decisions: Mapping[int, str | None]) -> int:
    """The newest promoted round, by the gate's decision of each round.

    0 where none was promoted: round 0 is the model that the rounds start from.
    """
    return max((number for number, decision in decisions.items() if decision == PROMOTED), default=0)

"""How often two people who answered the same task said the same, by mode: a first look while votes come in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from upturn.types import Votes

_RATED = 1.0  # ratings no further apart than this agree


@dataclass(frozen=True)
class Agreement:
    """Of ``pairs`` of answers by two people to one task, the share that say the same."""

    mode: str
    pairs: int
    share: float


def agreement(votes: Votes) -> list[Agreement]:
    """By mode; modes without a task that two people answered say nothing. Skips, edits and repeats are left out."""
    answers: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in range(len(votes)):
        if votes.action[row] in ("said", "tie", "bad") and votes.check[row] != "repeat" and votes.mode[row] != "edit":
            answers[votes.mode[row], votes.task[row]].append(_said(votes, row))
    same: dict[str, int] = defaultdict(int)
    pairs: dict[str, int] = defaultdict(int)
    for (mode, _), said in answers.items():
        for i, one in enumerate(said):
            for other in said[i + 1 :]:
                pairs[mode] += 1
                same[mode] += _agree(one, other)
    return [Agreement(mode, pairs[mode], same[mode] / pairs[mode]) for mode in pairs]


def _said(votes: Votes, row: int) -> Any:
    """What an answer says, whatever the order of the screen: the best one, the whole order, a number, or a word."""
    action = votes.action[row]
    if action != "said":
        return action
    if votes.mode[row] == "rate":
        return float(votes.scores[row][0])
    ranked = sorted(zip(votes.ranks[row], votes.shown[row], strict=True))
    if votes.mode[row] == "rank":
        return tuple(ranked)
    best = [sample for rank, sample in ranked if rank == 1]
    return best[0] if len(best) == 1 else "tie"


def _agree(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= _RATED
    return bool(one == other)

"""Which players can be compared: the graph of wins and ties, and notes on parts that were never compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from upturn.annotation.statistics.contests import TIED, Contests
from upturn.types import Array

_NAMED = 4  # a note lists at most so many players of a part, else only their number


def parts_of(found: Contests) -> Array:
    """(n,) the part of each player: those who beat one another, directly or through others. Strongest parts first.

    A part comes before another that it beat, directly or through others.
    """
    from scipy.sparse.csgraph import connected_components

    beat = wins_between(found) > 0
    count, label = connected_components(beat, directed=True, connection="strong")
    reach = np.zeros((count, count), dtype=bool)
    first, second = np.nonzero(beat)
    reach[label[first], label[second]] = True
    for _ in range(int(count).bit_length()):
        reach |= reach @ reach
    # a part that reaches more parts comes before those it reaches; size, then name, break ties
    size = np.bincount(label, minlength=count)
    names = np.array([min(found.names[label == part]) for part in range(count)])
    order = np.lexsort((names, -size, -(reach & ~np.eye(count, dtype=bool)).sum(axis=1)))
    place = np.empty(count, dtype=np.int64)
    place[order] = np.arange(count)
    moved: Array = place[label]
    return moved


def wins_between(found: Contests) -> Array:
    """(n, n) total weight of the contests with both that the first won."""
    n = len(found.names)
    won = found.won != TIED
    winner = found.there[np.arange(len(found)), np.maximum(found.won, 0)]
    losers = np.where(found.there == winner[:, None], -1, found.there)[won]
    rows, columns = np.nonzero(losers >= 0)
    out = np.zeros((n, n))
    np.add.at(out, (winner[won][rows], losers[rows, columns]), found.weight[won][rows])
    return out


def ties_between(found: Contests) -> Array:
    """(n, n) total weight of the contests with both in which all tied."""
    tied = found.won == TIED
    present = np.zeros((int(tied.sum()), len(found.names) + 1))
    present[np.arange(len(present))[:, None], found.there[tied]] = 1.0
    present = present[:, :-1]
    found_: Array = (present * found.weight[tied, None]).T @ present
    np.fill_diagonal(found_, 0.0)
    return found_


def incomparable_parts(found: Contests, part: Array) -> tuple[str, ...]:
    """A sentence for each two parts that were compared, and one if some never were, directly or through others."""
    from scipy.sparse.csgraph import connected_components

    count = int(part.max(initial=0)) + 1
    if count == 1:
        return ()
    wins, ties = wins_between(found), ties_between(found)
    member = np.eye(count)[part]
    beat, tied = member.T @ wins @ member, member.T @ ties @ member
    names = [_listed(found.names[part == number].tolist()) for number in range(count)]
    out = []
    for i in range(count):
        for j in range(count):
            if i != j and beat[i, j] > 0:
                also = f", besides {tied[i, j]:g} ties" if tied[i, j] else ""
                out.append(f"{names[i]} beat {names[j]} each of the {beat[i, j]:g} times that one of them was put "
                           f"first{also}: the difference cannot be estimated.")
            elif i < j and tied[i, j] > 0 and beat[j, i] == 0:
                out.append(f"{names[i]} and {names[j]} only ever tied, {tied[i, j]:g} times.")
    groups, label = connected_components((beat + tied) > 0, directed=False)
    if groups > 1:
        apart = [_listed(found.names[np.isin(part, np.flatnonzero(label == g))].tolist()) for g in range(groups)]
        out.append(f"Never compared, not even through others: {'; '.join(apart)}.")
    return tuple(out)


def _listed(names: Sequence[str]) -> str:
    if len(names) > _NAMED:
        return f"{len(names)} others such as {names[0]}"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

"""Where more training stops helping: the earliest checkpoint that does not differ from the best beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from upturn.seeds import fold
from upturn.statistics.contrast import Contrast, contrast
from upturn.types import Array, Measurement

ALPHA = 0.05  # chance that the truly best checkpoint is left out of ``within``
_RESAMPLES = 1999  # of a comparison: its least p, 1/2000, is below the level of one for up to 100 checkpoints


@dataclass(frozen=True)
class Plateau:
    """Positions in the list of checkpoints, which is in order of cost.

    best    the best value;  plateau  the first of ``within``
    within  those that are not worse than the best beyond chance
    loss    what the plateau gives away: best less plateau, with its 95% interval
    level   of one comparison;  how  by what values were compared (see ``Contrast``)
    """

    best: int
    plateau: int
    within: tuple[int, ...]
    loss: Contrast
    level: float
    how: str


def plateau(
    measured: Sequence[Measurement], better: str, key: int, clusters: Array | None = None, alpha: float = ALPHA
) -> Plateau | None:
    """The earliest of M checkpoints, in order of cost, that is within noise of the best.

    The rule: a checkpoint is left out if a one-sided test finds that the best is better than it, at alpha / (M - 1)
    (Bonferroni). Whichever was seen as best, the one that truly is best is left out with probability at most
    ``alpha``: some other would have to beat it by chance in one of M - 1 tests (multiple comparisons with the best,
    Hsu 1981, Annals of Statistics 9, by a simpler bound). What is in may still be a little worse: ``loss`` bounds it.
    Noise is that of prompts and draws for these weights, not that of training again with another seed.

    None where it is undefined: fewer than two checkpoints have a value, or the metric has no better side.
    """
    known = [place for place, m in enumerate(measured) if math.isfinite(m.value)]
    if better not in ("higher", "lower") or len(known) < 2:
        return None
    sign = 1.0 if better == "higher" else -1.0
    best = max(known, key=lambda place: (sign * measured[place].value, -place))
    level = alpha / (len(known) - 1)
    found = {
        place: contrast(
            measured[best], measured[place], int(fold(key, place)[0]), better=better, clusters=clusters,
            resamples=_RESAMPLES,
        )
        for place in known if place != best
    }
    if any(c.how == "none" and c.value != 0 for c in found.values()):
        return None
    within = tuple(place for place in known if place == best or found[place].p > level)
    first = within[0]
    loss = found.get(first, Contrast(0.0, 0.0, 0.0, 1.0, 1.0, "none"))
    how = next(iter(found.values())).how if first == best else loss.how
    return Plateau(best, first, within, loss, level, how)

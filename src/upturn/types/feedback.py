"""Scores, selections, preference groups and votes on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from upturn.types.samples import Array, Samples

BEST, WORST = 10.0, 1.0  # of a rating


@dataclass(frozen=True)
class Scores:
    """One scorer's word on N samples: ``values`` (N,) float64, NaN where it is *unscored* (neither right nor wrong)."""

    scorer: str
    values: Array
    explanations: Array | None = None

    @property
    def unscored(self) -> Array:
        """(N,) bool: where there is no score."""
        return np.isnan(self.values)


@dataclass(frozen=True)
class Selection:
    """What a curator keeps of N samples: ``kept`` (N,) bool, and a reason for every one that is dropped."""

    curator: str
    kept: Array
    reasons: Array  # (N,) str objects, "" where kept

    def __post_init__(self) -> None:
        without = [i for i in np.flatnonzero(~self.kept) if not self.reasons[i]]
        if without:
            raise ValueError(f"{self.curator}: {len(without)} samples dropped without a reason")


@dataclass(frozen=True)
class Groups:
    """G groups of K candidates: the one preference type. A pair is K = 2, an unpaired label K = 1.

    rows     (G, K) int64 rows of ``samples``, -1 where a group has fewer
    ranks    (G, K) int64, 1 is best, equal ranks are ties, 0 where not ranked
    rewards  (G, K) float64, NaN where there is none
    strength (G,) float64 how sure the preference is, 1 unless given
    """

    samples: Samples
    rows: Array
    ranks: Array
    rewards: Array
    strength: Array

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Votes:
    """N votes in columns, without undone ones. A row is one annotator's vote on one task.

    ids       (N,) str objects
    person    (N,) str objects, a pseudonym, never a name;  team (N,) the annotator's team, "" where unknown
    task      (N,) str objects: the task; all votes on one task are about the same candidates
    mode      (N,) the vote mode by name, such as "pick", or "studio" (implicit: what was downloaded, enlarged)
    action    (N,) "said" (a vote: see ranks and scores), "tie", "bad" (all are), "skip", "edit", "download", "upscale"
    shown     (N,) tuples of sample ids by position on the screen, the first first
    ranks     (N,) tuples of int beside ``shown``: 1 is best, equal is a tie, 0 not ranked. A pick has a single 1
    scores    (N,) tuples of float beside ``shown``, NaN where there is none
    strength  (N,) float64 how much better, NaN where not given
    text      (N,) str objects, "" or the annotator's edited text
    seconds   (N,) float64 from the showing to the answer;  moment (N,) float64 seconds since 1970, UTC
    check     (N,) "" | "gold" (``right`` is known) | "repeat" (this annotator voted on the task before)
    right     (N,) str objects, of gold tasks the sample that is known to be best, else ""
    """

    ids: Array
    person: Array
    team: Array
    task: Array
    mode: Array
    action: Array
    shown: Array
    ranks: Array
    scores: Array
    strength: Array
    text: Array
    seconds: Array
    moment: Array
    check: Array
    right: Array

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Array | Sequence[int]) -> Votes:
        """These rows; a bool mask or numbers."""
        return Votes(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

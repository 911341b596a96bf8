"""Keeps the first of samples that are equal, or nearly equal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from upturn.curators._helpers import selection
from upturn.curators._near import NearestKept
from upturn.errors import UserError
from upturn.protocols import Curator, Tools
from upturn.types import Array, Samples, Selection, concatenate, objects


@dataclass
class Deduplicate(Curator):
    """Drops what is equal to an earlier row, and with ``distance`` what is nearer than that to one that is kept.

    Equal is equal content; texts are compared only where their prompts have the same text, for a completion is an
    answer to its prompt. Near is by Euclidean distance of the recipe's ``features:``, greedily in the order of the
    rows: no two kept rows are nearer than ``distance``. Memory is bounded: blocks of 1,024 rows against those kept.
    With ``against_real`` the real training data come first, so copies of them are dropped, too (and only
    synthetic rows can be copies of them). Rewards are not read.
    """

    distance: float | None = None  # in units of the features; None: only what is equal
    against_real: bool = False

    selects = "content"

    def __post_init__(self) -> None:
        if self.distance is not None and not self.distance > 0:
            raise ValueError(f"distance must be above 0, not {self.distance}; leave it out to drop only equals")

    def curate(self, samples: Samples, rewards: Array, tools: Tools, key: int) -> Selection:
        """The reason of a dropped row names the id of the row that it repeats."""
        if len(samples) == 0:
            return selection("deduplicate", np.zeros(0, dtype=bool), [])
        before = self._before(samples, tools)
        every = concatenate([before, samples]) if len(before) else samples
        offset = len(before)
        first = _first_equal(every)
        twin = np.where(first < np.arange(len(every)), first, -1)[offset:]  # (N,) row of ``every``, -1 where none
        reasons = objects([f"deduplicate: equal to {every.ids[row]}" if row >= 0 else "" for row in twin.tolist()])
        if self.distance is not None:
            rows = np.concatenate([np.arange(offset), offset + np.flatnonzero(twin < 0)])
            near = self._near(every, rows, offset, tools)
            for row, other in near.items():
                reasons[row - offset] = f"deduplicate: nearer than {self.distance:g} to {every.ids[other]}"
        return selection("deduplicate", reasons == "", reasons)

    def _before(self, samples: Samples, tools: Tools) -> Samples:
        """Real rows that precede all others: those of the training split that are not themselves curated."""
        if not self.against_real:
            return samples.take([])
        if tools.train.kind != samples.kind or tools.train.content.shape[1:] != samples.content.shape[1:]:
            raise UserError(
                f"samples are {samples.kind} of shape {samples.content.shape[1:]}, the real data {tools.train.kind} "
                f"of shape {tools.train.content.shape[1:]}: they cannot be compared",
                where="curator 'deduplicate'", fix="Leave out 'against_real'.",
            )
        return tools.train.take(~np.isin(tools.train.ids.astype(str), samples.ids.astype(str)))

    def _near(self, every: Samples, rows: Array, offset: int, tools: Tools) -> dict[int, int]:
        """Row -> the kept row it is near to, both of ``every``, for those of ``rows`` from ``offset`` on."""
        assert self.distance is not None
        parts = [tools.embed(every.take(np.arange(offset)))] if offset else []
        vectors = np.concatenate([*parts, tools.embed(every.take(np.arange(offset, len(every))))])
        if not np.isfinite(vectors[rows]).all():
            raise UserError(
                "the features of some samples are not finite numbers", where="curator 'deduplicate'",
                fix="Look at the samples, or choose other 'features:'.",
            )
        found: dict[int, int] = {}
        for members in _comparable(every, rows):
            kept = NearestKept(vectors, self.distance)
            kept.extend(members[members < offset])
            found |= kept.sift(members[members >= offset])
        return found


def _first_equal(samples: Samples) -> Array:
    """(N,) int64: the first row whose content is equal (of equal prompt text, if texts)."""
    if samples.kind == "text":
        table: dict[tuple[str, str], int] = {}
        pairs = zip(samples.prompts, samples.content, strict=True)
        return np.array([table.setdefault((p.text, c), row) for row, (p, c) in enumerate(pairs)], dtype=np.int64)
    content = np.ascontiguousarray(samples.content.reshape(len(samples), -1))
    digests = b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in content)
    _, first, inverse = np.unique(np.frombuffer(digests, dtype=np.int64), return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _comparable(samples: Samples, rows: Array) -> list[Array]:
    """``rows`` in parts within which samples are compared: all, or for texts those of one prompt text."""
    if samples.kind != "text":
        return [rows]
    _, part = np.unique([samples.prompts[row].text for row in rows.tolist()], return_inverse=True)
    order = np.argsort(part, kind="stable")
    cuts = np.flatnonzero(np.diff(part[order])) + 1
    return [rows[piece] for piece in np.split(order, cuts)]

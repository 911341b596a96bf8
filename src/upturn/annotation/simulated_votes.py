"""How simulated annotators vote: keyed by the candidates, all groups at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upturn import seeds
from upturn.types import Array, Samples, objects

_BITS = 63


@dataclass(frozen=True)
class Ballots:
    """What P people said of N samples, in groups of those that could be compared.

    taste    (N,) what they like, NaN where they cannot say
    compared (M,) rows that stood beside another scored candidate, ordered by group, then by row
    part     (M,) 0, 1, … the group of each
    picked   (P, M) bool: the pick, or all that are tied with it
    """

    taste: Array
    compared: Array
    part: Array
    picked: Array

    def shares(self) -> Array:
        """(N,) mean over people of the pick, 1/m where m are tied; NaN where nothing was compared."""
        out = np.full(len(self.taste), np.nan)
        if len(self.compared):
            starts = np.flatnonzero(np.diff(self.part, prepend=-1))
            tied = np.add.reduceat(self.picked, starts, axis=1, dtype=np.int64)[:, self.part]
            out[self.compared] = (self.picked / tied).mean(axis=0)
        return out

    def table(self) -> tuple[Array, Array]:
        """Rows (G, K) int64, -1 where a group has fewer, and the picks (P, G, K)."""
        groups = int(self.part.max(initial=-1)) + 1
        starts = np.flatnonzero(np.diff(self.part, prepend=-1))
        place = np.arange(len(self.part)) - starts[self.part]
        width = int(place.max(initial=-1)) + 1
        rows = np.full((groups, width), -1, dtype=np.int64)
        picked = np.zeros((len(self.picked), groups, width), dtype=bool)
        rows[self.part, place] = self.compared
        picked[:, self.part, place] = self.picked
        return rows, picked


def ballots(
    samples: Samples, taste: Array, people: int, noise: float, careless: float, ties: float, seed: int
) -> Ballots:
    """The votes of ``people`` on samples whose taste (N,) is known.

    A person's noise on a candidate comes from the candidate's id; whether that vote is careless, from the ids of all
    candidates that were compared, in any order.
    """
    scored = np.flatnonzero(~np.isnan(taste))
    _, inverse, counts = np.unique(samples.group[scored], return_inverse=True, return_counts=True)
    several = counts[inverse] > 1
    rows, group = scored[several], samples.group[scored[several]]
    order = np.argsort(group, kind="stable")
    rows, group = rows[order], group[order]
    part = np.cumsum(np.diff(group, prepend=group[0] - 1 if len(group) else 0) != 0) - 1
    if len(rows) == 0:
        return Ballots(taste, rows, part, np.zeros((people, 0), dtype=bool))
    starts = np.flatnonzero(np.diff(part, prepend=-1))
    keys = _keys(samples.ids[rows], seed)
    together = np.bitwise_xor.reduceat(keys, starts)
    picked = np.zeros((people, len(rows)), dtype=bool)
    for person in range(people):
        gumbel, whim = _uniform(keys, person), _uniform(keys, people + person)
        utility = taste[rows] - noise * np.log(-np.log(gumbel)) if noise else taste[rows]
        best = np.maximum.reduceat(utility, starts)[part]
        sloppy = (_uniform(together, person) < careless)[part]
        random_pick = whim == np.maximum.reduceat(whim, starts)[part]
        with np.errstate(invalid="ignore"):  # an infinite taste is equal to itself, but its difference is no number
            liked = (utility == best) | (best - utility <= ties)
        picked[person] = np.where(sloppy, random_pick, liked)
    return Ballots(taste, rows, part, picked)


def uniforms(ids: Sequence[str], seed: int, person: int, people: int) -> tuple[Array, Array, float]:
    """What one of ``people`` would draw of candidates that stand alone together, as ``ballots`` draws it.

    (K,) the noise of each candidate and (K,) the whim, both in (0, 1), and the number that says whether the vote is
    careless.
    """
    keys = _keys(objects(list(ids)), seed)
    together = np.bitwise_xor.reduce(keys, keepdims=True)
    return _uniform(keys, person), _uniform(keys, people + person), float(_uniform(together, person)[0])


def _keys(ids: Array, seed: int) -> Array:
    """(M,) int64 below 2^63, one for each id."""
    own = f"simulated_people:{seed}".encode()
    digests = b"".join(hashlib.blake2b(str(name).encode(), digest_size=8, key=own).digest() for name in ids)
    keys: Array = (np.frombuffer(digests, dtype="<u8") >> np.uint64(64 - _BITS)).astype(np.int64)
    return keys


def _uniform(keys: Array, stream: int) -> Array:
    """(M,) float64 in (0, 1), of this stream of each key."""
    numbers: Array = seeds.uniform(keys, (1,), stream=stream).numpy()[:, 0].astype(np.float64)
    return numbers

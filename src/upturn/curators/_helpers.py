"""Shared by curators: rows by group, keyed order, and a selection with its reasons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from upturn import seeds
from upturn.errors import UserError
from upturn.types import Array, Samples, Selection, objects

UNSCORED = "unscored"


def scored(samples: Samples, rewards: Array, curator: str) -> Array:
    """(N,) bool: rows with a reward.

    Raises UserError where the rewards do not belong to these samples. A round in which nothing is scored keeps
    nothing, and every row has that reason: a verifier may find no answer in any sample of a barely trained model.
    """
    if np.shape(rewards) != (len(samples),):
        raise UserError(
            f"{len(samples)} samples but rewards of shape {np.shape(rewards)}", where=f"curator '{curator}'",
            fix="Score exactly the samples that are curated.",
        )
    known: Array = ~np.isnan(np.asarray(rewards, dtype=np.float64))
    return known


def row_uniform(samples: Samples, key: int) -> Array:
    """(N,) float64 in (0, 1): a row's number depends on the key, its group and its candidate, on no other row.

    A curator that ran before may have dropped rows of the group; the rest keep their numbers. The key of a group is
    ``seeds.fold(key, group)``, its candidates are the streams of that key.
    """
    groups, inverse = np.unique(samples.group, return_inverse=True)
    keys = seeds.fold(key, groups)
    out = np.empty(len(samples), dtype=np.float64)
    for first in range(0, int(samples.candidate.max(initial=-1)) + 1, _WIDTH):
        rows = np.flatnonzero((samples.candidate >= first) & (samples.candidate < first + _WIDTH))
        numbers = seeds.uniform(keys, (_WIDTH,), stream=first // _WIDTH).numpy()
        out[rows] = numbers[inverse[rows], samples.candidate[rows] - first]
    return out


_WIDTH = 16  # candidates drawn at once: bounds memory where one group has very many


def ranks_within(part: Array, rewards: Array, tie: Array) -> Array:
    """(M,) int64 rank of each row within its part, 1 for the highest reward; equal rewards are ordered by ``tie``."""
    order = np.lexsort((tie, -rewards, part))
    ordered = part[order]
    fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(order) else np.zeros(0, dtype=bool)
    starts = np.flatnonzero(fresh)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - starts[np.cumsum(fresh) - 1] + 1 if len(order) else 0
    return ranks


def sizes_within(part: Array) -> Array:
    """(M,) int64: how many rows share a row's part."""
    _, inverse, counts = np.unique(part, return_inverse=True, return_counts=True)
    sizes: Array = counts[inverse]
    return sizes


def selection(curator: str, kept: Array, reasons: Array | Sequence[str]) -> Selection:
    """A selection whose reasons are "" where kept, "unscored" where none was given, and else begin with the curator."""
    recorded = objects(reasons)
    recorded[kept] = ""
    return Selection(curator, kept, recorded)


def number(value: float, limit: float | None = None) -> str:
    """A reward to display: four digits, or all of them where four would round it to ``limit``."""
    short = f"{value:.4g}"
    return repr(float(value)) if limit is not None and value != limit and float(short) == limit else short

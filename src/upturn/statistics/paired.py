"""Is one model better than another on the same prompts and the same noise? One-sided, paired, clustered by prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from upturn.seeds import fold, generator
from upturn.statistics.intervals import resampled_mean
from upturn.types import Array

_EXACT = 14  # clusters up to which all 2^C signs are tried
_CELLS = 2_000_000  # signs held at a time
_ROUNDING = 1e-12  # sums closer than this share of the largest possible sum are equal


@dataclass(frozen=True)
class Paired:
    """What a paired test found.

    p           one-sided: how often a difference at least so large arises where neither model is better
    difference  mean of new - incumbent over the pairs;  low, high its two-sided interval
    pairs       how many pairs were compared;  dropped how many lacked a value on either side
    clusters    how many clusters differ at all;  smallest the least p that so many can give
    """

    p: float
    difference: float
    low: float
    high: float
    pairs: int
    dropped: int
    clusters: int
    smallest: float


def paired_test(
    differences: Array, key: int, clusters: Array | None = None, *, level: float = 0.95, resamples: int = 9999
) -> Paired:
    """Tests that the mean of ``differences`` (n,) is above 0; NaN marks a pair that cannot be compared.

    Sign-flip (randomisation) test on the sums of clusters: where the two models are equal, each prompt's difference is
    as likely to fall either way (Fisher 1935, section 21; asymptotically valid without symmetry because the
    flipped sums have the variance of the sum, Romano 1990, JASA 85). All 2^C signs up to 14 clusters, else
    ``resamples`` random ones and p = (1 + hits) / (1 + resamples), never too small (Phipson & Smyth 2010).
    Dividing by the standard error would change nothing: the sum of squares is the same for all signs.

    Ties (0) carry no sign and drop out by themselves; without any difference p = 1.
    """
    flat = np.asarray(differences, dtype=np.float64).reshape(-1)
    known = ~np.isnan(flat)
    values, dropped = flat[known], int((~known).sum())
    groups = None if clusters is None else np.asarray(clusters)[known]
    if not len(values):
        return Paired(1.0, math.nan, math.nan, math.nan, 0, dropped, 0, 1.0)
    low, high = resampled_mean(values, key, level, clusters=groups)
    sums: Array = values
    if groups is not None:
        members = np.unique(groups, return_inverse=True)[1].reshape(-1)
        sums = np.bincount(members, weights=values)
    limit = _ROUNDING * float(np.abs(values).sum())
    sums = sums[np.abs(sums) > limit]
    count = len(sums)
    exact = count <= _EXACT
    p = _exact(sums) if exact else _random(sums, int(fold(key, 1)[0]), resamples)
    smallest = 0.5**count if exact else 1 / (1 + resamples)
    return Paired(p, float(values.mean()), low, high, len(values), dropped, count, smallest)


def _exact(sums: Array) -> float:
    """The share of all 2^C sign patterns whose sum is at least the observed one."""
    totals = np.zeros(1)
    for value in np.abs(sums):
        totals = np.concatenate([totals - value, totals + value])
    return float(np.mean(totals >= float(sums.sum()) - _ROUNDING * float(np.abs(sums).sum())))


def _random(sums: Array, key: int, resamples: int) -> float:
    draw, count = generator(key), len(sums)
    # flipping the signs s of x: sum(s x) = sum(x) - 2 sum(x where flipped), so bits are enough
    at_most = _ROUNDING * float(np.abs(sums).sum())
    hits, step = 0, max(1, _CELLS // count)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        bits = np.unpackbits(np.frombuffer(draw.bytes(rows * -(-count // 8)), dtype=np.uint8).reshape(rows, -1), axis=1)
        hits += int((bits[:, :count] @ sums <= at_most).sum())
    return (1 + hits) / (1 + resamples)

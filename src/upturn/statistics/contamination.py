"""How much of what claims to be real is synthetic: an interval, from trusted real data and from outputs of our own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from upturn.seeds import generator
from upturn.statistics.intervals import share
from upturn.statistics.neighbours import nearest
from upturn.statistics.two_samples import fitted, separate
from upturn.types import Array, Samples

_LEAST = 50  # rows of each that a classifier is fitted to and assessed on
_FOLDS = 5
_NEAR = 0.25  # of the least distance between trusted and own rows: nearer is a copy (by chance 1 row in 4^D)
_EXACT = 1e-6  # of the rows' own spread, where no trusted rows set the scale
_BINS = 10  # of scores, for the check that the rows are a mixture of the two at all
_MISFIT = 1e-3  # p below which they are not
_GRID = 2001  # shares that are tried
Embed = Callable[[Samples], Array]


@dataclass(frozen=True)
class Sign:
    """The result of one kind of evidence; ``p`` of so much of it in real data, one-sided, None for a count."""

    value: float
    p: float | None


@dataclass(frozen=True)
class Contamination:
    """``low`` to ``high`` (95%) and ``value`` of the synthetic share of ``n`` rows; ``value`` is NaN for a bound alone.

    how    "mixture", "two samples", "copies" or "nothing": which evidence the interval is of
    signs  "copies" (their share), "two_samples" (a classifier's accuracy), "likelihood" (nats more than trusted rows)
    """

    low: float
    high: float
    value: float
    how: str
    n: int
    note: str = ""
    signs: Mapping[str, Sign] = field(default_factory=dict)

    @property
    def detected(self) -> bool:
        """Whether the interval excludes data that is all real."""
        return self.low > 0

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        return found | {"value": self.value if math.isfinite(self.value) else None}


def contamination(
    real: Samples, trusted_real: Samples | None, own_samples: Samples | None, embed: Embed, *,
    key: int = 0, log_likelihood: Embed | None = None,
) -> Contamination:
    """The synthetic share of ``real``, by features (N, D) that ``embed`` gives.

    ``log_likelihood`` (N,) nats under a model of our own is one more feature where it is given, and a sign of its own.
    See :func:`of_features` for what is estimated and assumed.
    """
    if not len(real):
        return Contamination(0.0, 1.0, math.nan, "nothing", 0, "there are no samples")
    given = (real, trusted_real, own_samples)

    def each(embed: Embed | None) -> list[Array | None]:
        return [np.asarray(embed(part)) if embed is not None and part is not None and len(part) else None
                for part in given]

    suspect, trusted, own = each(embed)
    assert suspect is not None
    return of_features(suspect, trusted, own, key=key, logs=each(log_likelihood))


def of_features(
    suspect: Array, trusted: Array | None, own: Array | None, *, key: int = 0,
    logs: Sequence[Array | None] = (None, None, None),
) -> Contamination:
    """The synthetic share of ``suspect`` (N, D), given ``trusted`` real rows (M, D) and ``own`` synthetic ones (K, D).

    Three kinds of evidence, the strongest that there is deciding:

    mixture      both are given. A classifier between them scores rows that it has not seen (5 folds); if the suspect
                 rows are (1 - c) trusted + c own, so is their mean score, which gives c (the adjusted count of Forman
                 2008, Data Mining and Knowledge Discovery 17, for scores). Of shares c, those stand in the interval
                 that a z-test of that equation does not reject: it stays honest where the classifier is weak, and
                 needs no calibrated probabilities. It assumes that what is real in the suspect rows is distributed
                 like the trusted, what is synthetic like the own rows; where their scores contradict that, the next:
    two samples  only trusted rows, or other synthetic data than ours. A classifier's balanced accuracy a on unseen rows
                 bounds the total variation, and this c: c >= 2a - 1 (one-sided 95%), whatever the synthetic rows are
    copies       rows nearer to an own one than any trusted row comes by far: these are ours, a bound from below

    Copies are counted first and removed; the rest is assessed as above.
    """
    n = len(suspect)
    copied = _copied(suspect, trusted, own)
    sure = float(copied.mean())
    signs = {} if own is None else {"copies": Sign(sure, None)}
    if trusted is None or len(trusted) < _LEAST:
        why = "no trusted real data" if trusted is None else f"{len(trusted)} trusted rows; {_LEAST} are needed"
        return Contamination(sure, 1.0, math.nan, "copies" if own is not None else "nothing", n, why, signs)
    rest = np.flatnonzero(~copied)
    if len(rest) < _LEAST:
        note = f"{len(rest)} rows are no copies; {_LEAST} are needed to assess them"
        return Contamination(sure, 1.0, math.nan, "copies" if sure else "nothing", n, note, signs)
    ours = None if logs[0] is None else logs[0][rest]
    left, known = _wide(suspect[rest], ours), _wide(trusted, logs[1])
    separation = separate(known, left, key)
    signs["two_samples"] = Sign(separation.accuracy, separation.p)
    bound = max(0.0, 2 * share(separation.right, 0.9)[0] - 1)  # a two-sided 90% interval ends at the one-sided 95%
    if own is None or len(own) < _LEAST:
        low = sure + (1 - sure) * bound
        few = f"{0 if own is None else len(own)} own samples; {_LEAST} are needed"
        note = "the distribution of the synthetic rows is unknown: a bound" if own is None else few
        return Contamination(low, 1.0, math.nan, "two samples", n, note, signs)
    scores = _scores(left, known, _wide(own, logs[2]), key)
    odds = [np.log(part / (1 - part)) for part in (_open(scores.suspect), _open(scores.trusted))]
    signs["likelihood"] = _above(odds[0] if ours is None else ours, odds[1] if logs[1] is None else logs[1])
    found = _Mixture.of(scores)
    if found.misfit < _MISFIT:
        note = f"the rows are no mixture of trusted and own ones (p = {found.misfit:.1g}): a bound"
        return Contamination(sure + (1 - sure) * bound, 1.0, math.nan, "two samples", n, note, signs)
    low, high, value = (sure + (1 - sure) * end for end in (found.low, found.high, found.value))
    return Contamination(low, high, value, "mixture", n, "", signs)


def _copied(suspect: Array, trusted: Array | None, own: Array | None) -> Array:
    """(N,) bool."""
    if own is None:
        return np.zeros(len(suspect), dtype=bool)
    if trusted is not None:
        limit = _NEAR * float(nearest(trusted, own)[0].min())
    else:
        limit = _EXACT * float(np.sqrt(own.var(axis=0, dtype=np.float64).sum()))
    return np.asarray(nearest(suspect, own)[0] < limit)


def _wide(features: Array, logs: Array | None) -> Array:
    return features if logs is None else np.concatenate([features, logs[:, None]], axis=1)


@dataclass(frozen=True)
class _Scores:
    """The probability of being our own, each row's by a classifier that has not seen it."""

    suspect: Array
    trusted: Array
    own: Array


def _scores(suspect: Array, trusted: Array, own: Array, key: int) -> _Scores:
    folds = [_fold(len(part), key + i) for i, part in enumerate((suspect, trusted, own))]
    found = [np.empty(len(part)) for part in (suspect, trusted, own)]
    for fold in range(_FOLDS):
        judge = fitted(trusted[folds[1] != fold], own[folds[2] != fold], key + fold)
        for part, into, at in zip((suspect, trusted, own), found, folds, strict=True):
            into[at == fold] = judge(part[at == fold])
    return _Scores(*found)


def _fold(n: int, key: int) -> Array:
    """(n,) the fold of each row, at random, of even sizes."""
    order: Array = generator(key).permutation(n) % _FOLDS
    return order


@dataclass(frozen=True)
class _Mixture:
    """The share c of own rows among suspect ones, its interval, and p of what is no mixture."""

    low: float
    high: float
    value: float
    misfit: float

    @staticmethod
    def of(scores: _Scores) -> _Mixture:
        from scipy.special import ndtri

        s, a, b = (float(part.mean()) for part in (scores.suspect, scores.trusted, scores.own))
        real, made = float(scores.trusted.var(ddof=1)), float(scores.own.var(ddof=1))
        c = np.linspace(0, 1, _GRID)
        # the share of these very rows: which of them are synthetic is no part of the error
        error = np.sqrt(
            ((1 - c) * real + c * made) / len(scores.suspect)
            + (1 - c) ** 2 * real / len(scores.trusted) + c**2 * made / len(scores.own)
        )
        inside = c[np.abs(s - (1 - c) * a - c * b) <= float(ndtri(0.975)) * error]
        if not len(inside):
            return _Mixture(0.0, 1.0, math.nan, 0.0)
        value = float(np.clip((s - a) / (b - a), inside[0], inside[-1])) if b > a else float(inside.mean())
        return _Mixture(float(inside[0]), float(inside[-1]), value, _misfit(scores, value))


def _misfit(scores: _Scores, value: float) -> float:
    """p of a chi-square test that scores of suspect rows are distributed as the mixture's, in bins of even weight."""
    from scipy.special import chdtrc

    edges = np.unique(np.quantile(np.concatenate([scores.trusted, scores.own]), np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = [
        np.bincount(np.searchsorted(edges, part), minlength=len(edges) + 1) / len(part)
        for part in (scores.suspect, scores.trusted, scores.own)
    ]
    seen, trusted, own = shares
    expected = (1 - value) * trusted + value * own
    spread = (
        expected / len(scores.suspect) + (1 - value) ** 2 * trusted / len(scores.trusted)
        + value**2 * own / len(scores.own)
    )
    used = spread > 0
    degrees = int(used.sum()) - 2  # the shares sum to 1, and one number is fitted
    if degrees < 1:
        return 1.0
    return float(chdtrc(degrees, float(((seen - expected)[used] ** 2 / spread[used]).sum())))


def _above(ours: Array, real: Array) -> Sign:
    """How much likelier suspect rows are than trusted ones, nats: as our samples rather than as real, or by our model.

    Of few samples the classifier is surer than it should be: the sign counts, not the size.
    """
    from scipy.special import ndtr

    gap = float(ours.mean() - real.mean())
    error = math.sqrt(float(ours.var(ddof=1)) / len(ours) + float(real.var(ddof=1)) / len(real))
    return Sign(gap, float(ndtr(-gap / error)) if error > 0 else 1.0)


def _open(probability: Array) -> Array:
    found: Array = probability.clip(1e-9, 1 - 1e-9)
    return found

"""Four checks for careless annotators, each with a controlled rate of false alarms.

guessing  agrees with the others less than half as much as they agree among themselves
position  picks depend on the position on the screen
speed     most answers take less than a third of the others' median time
drift     agreement with the others changes over time
"""

from __future__ import annotations

import math

import numpy as np

from upturn.annotation.statistics.annotator_profile import Counted, ProfileCheck, holm, nothing
from upturn.seeds import generator
from upturn.seeds import key as keyed
from upturn.statistics.intervals import wilson
from upturn.types import Array, Votes

ALPHA = 0.05  # probability that any careful annotator is flagged by any of the four checks
LEAST = 10  # answers below which a check is undefined for an annotator
_HALF = 0.5  # share of the others' agreement below which answers count as guesses; also the limit for fast answers
_FAST = 1 / 3  # of the others' median time: a usual limit for "speeders" in surveys
_CLEAR = 4.0  # standard errors of the others' agreement above 0; at 2 there are too many false alarms (docs/decisions/)
_EXPECTED = 20.0  # picks per position from which the chi-square tail is used; below it, simulation
_DRAWS = 19_999


def checks(votes: Votes, alpha: float = ALPHA) -> tuple[ProfileCheck, ...]:
    """guessing, position, speed and drift, for all annotators with a vote that counts.

    The probability that any annotator is flagged who picks by preference, at the usual speed, is at most ``alpha``.
    """
    counted = Counted.of(votes)
    each = alpha / 4
    return guessing(counted, each), position(counted, each), speed(counted, each), drift(counted, each)


def guessing(found: Counted, alpha: float) -> ProfileCheck:
    """Value: agreement with the others beyond chance, as a share of the others' agreement among themselves.

    1 is typical, 0 guessing, below 0 systematic disagreement. Tested one-sided against one half, by the mean over
    tasks: an annotator with different preferences is flagged too, so a finding is a reason to check and no proof.
    """
    people = len(found.people)
    rows = np.flatnonzero(~np.isnan(found.gain))
    n = np.bincount(found.person[rows], minlength=people)
    total, square = found.sums(found.gain, rows), found.sums(found.gain**2, rows)
    # pairs of annotators: all, those in which the annotator is first, those in which they are second
    pairs, sums = found.others * 1.0, np.where(np.isnan(found.gain), 0.0, found.gain) * found.others
    own_pairs, own_sums = found.sums(pairs, rows), found.sums(sums, rows)
    seen_pairs = found.sums(found.picks * 1.0, np.arange(len(found.person)))
    seen_sums = own_sums  # "the same" is mutual, and both pick among the same candidates
    rest = pairs[rows].sum() - own_pairs - seen_pairs
    with np.errstate(invalid="ignore", divide="ignore"):
        crowd = np.where(rest > 0, (sums[rows].sum() - own_sums - seen_sums) / rest, np.nan)
        mean, spread = total / n, np.sqrt(np.maximum(square / n - (total / n) ** 2, 0) * n / (n - 1) / n)
    every = _spread_of_crowd(found, rows)
    tested = (n >= LEAST) & (crowd > _CLEAR * every)
    crowd = np.where(tested, crowd, np.nan)
    spread = np.where(spread > 0, spread, np.nan)
    t = (mean - _HALF * crowd) / np.hypot(spread, _HALF * every)
    p = np.where(tested, _t_below(t, n - 1), np.nan)
    value, half = mean / crowd, 1.96 * np.hypot(spread, mean / crowd * every) / crowd
    note = "" if tested.any() else (
        "annotators agree hardly more than guesses would, so guessing cannot be detected" if (n >= LEAST).any()
        else f"nobody answered {LEAST} tasks that others answered"
    )
    words = tuple(
        f"agrees with the others {v:.2f} times as much as they do among themselves" if ok else ""
        for v, ok in zip(value.tolist(), tested.tolist(), strict=True)
    )
    return ProfileCheck("guessing", found.people, value, value - half, value + half, n, p, holm(p, alpha), words, note)


def _spread_of_crowd(found: Counted, rows: Array) -> float:
    """Standard error of the mean gain over all annotators, clustered by task."""
    if not len(rows):
        return math.nan
    tasks, place = np.unique(found.task[rows], return_inverse=True)
    weight = found.others[rows].astype(np.float64)
    mean = float((found.gain[rows] * weight).sum() / weight.sum())
    off = np.bincount(place, weights=(found.gain[rows] - mean) * weight, minlength=len(tasks))
    return float(np.sqrt((off**2).sum())) / float(weight.sum())


def position(found: Counted, alpha: float) -> ProfileCheck:
    """Value: share of picks at the annotator's most frequent position. Candidates are shuffled for each annotator, so
    without a position bias all positions are equally likely (chi-square, simulated where there are few picks).
    """
    people = len(found.people)
    if _one_order(found):
        return nothing("position", found, "all annotators saw one order: position and preference cannot be separated")
    width = int(found.shown.max(initial=1))
    counts = np.zeros((people, width + 1, width))
    rows = np.flatnonzero(found.best >= 0)
    np.add.at(counts, (found.person[rows], found.shown[rows], found.best[rows]), 1.0)
    n = counts.sum(axis=(1, 2)).astype(np.int64)
    p = np.full(people, np.nan)
    value, low, high = p.copy(), p.copy(), p.copy()
    words = [""] * people
    for i in np.flatnonzero(n >= LEAST).tolist():
        p[i] = _uneven(counts[i])
        place = int(counts[i].sum(axis=0).argmax())
        at, total = float(counts[i, place + 1 :, place].sum()), float(counts[i, place + 1 :].sum())
        value[i] = at / total
        low[i], high[i] = wilson(at / total, total)
        words[i] = f"{at:g} of {total:g} picks are at position {place + 1}"
    note = "" if (n >= LEAST).any() else f"nobody picked {LEAST} times"
    return ProfileCheck("position", found.people, value, low, high, n, p, holm(p, alpha), tuple(words), note)


def _one_order(found: Counted) -> bool:
    """Whether annotators of the same task nearly always saw its candidates in the same order."""
    first: dict[int, tuple[int, ...]] = {}
    same = total = 0
    for task, items in zip(found.task.tolist(), map(tuple, found.items.tolist()), strict=True):
        if task in first:
            total += 1
            same += first[task] == items
        first.setdefault(task, items)
    return total >= LEAST and same > 0.9 * total  # expected by chance: 1 in 2 for pairs, 1 in 24 for four


def _uneven(counts: Array) -> float:
    """p-value of picks (K + 1, K), by number of candidates and position, under equally likely positions."""
    from scipy.special import chdtrc

    sizes = [k for k in range(2, len(counts)) if counts[k].sum() > 0]
    totals = [int(counts[k].sum()) for k in sizes]
    def statistic(k: int, drawn: Array) -> Array:
        expected = drawn[0].sum() / k
        found: Array = ((drawn - expected) ** 2).sum(axis=1) / expected
        return found
    seen = sum(float(statistic(k, counts[k, None, :k])[0]) for k in sizes)
    if all(total / k >= _EXPECTED for total, k in zip(totals, sizes, strict=True)):
        return float(chdtrc(sum(sizes) - len(sizes), seen))
    draw = generator(keyed("position", *totals))
    drawn = sum(statistic(k, draw.multinomial(total, [1 / k] * k, _DRAWS)) for k, total in zip(sizes, totals,
                                                                                            strict=True))
    return float((1 + (np.asarray(drawn) >= seen - 1e-9).sum()) / (1 + _DRAWS))


def speed(found: Counted, alpha: float) -> ProfileCheck:
    """Value: share of answers in less than a third of the others' median time in the mode; tested against 1/2."""
    from scipy.special import bdtrc

    people = len(found.people)
    fast, known = np.zeros(len(found.person), dtype=bool), ~np.isnan(found.seconds)
    for mode in np.unique(found.mode).tolist():
        for i in range(people):
            own = np.flatnonzero((found.mode == mode) & known & (found.person == i))
            others = np.flatnonzero((found.mode == mode) & known & (found.person != i))
            if len(others):
                fast[own] = found.seconds[own] < _FAST * np.median(found.seconds[others])
    rows = np.flatnonzero(known)
    n = np.bincount(found.person[rows], minlength=people)
    count = found.sums(fast.astype(np.float64), rows)
    tested = (n >= LEAST) & (people > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(tested, count / n, np.nan)
    p = np.where(tested, np.where(count > 0, bdtrc(np.maximum(count - 1, 0), np.maximum(n, 1), _HALF), 1.0), np.nan)
    ends = np.array([wilson(float(c) / k, float(k)) if ok else (math.nan, math.nan)
                     for c, k, ok in zip(count, n, tested, strict=True)]).reshape(-1, 2)
    words = tuple(f"{c:g} of {k} answers in less than a third of the others' time" if ok else ""
                  for c, k, ok in zip(count.tolist(), n.tolist(), tested.tolist(), strict=True))
    note = "" if tested.any() else f"nobody else to compare with, or nobody has {LEAST} answers with a time"
    return ProfileCheck("speed", found.people, value, ends[:, 0], ends[:, 1], n, p, holm(p, alpha), words, note)


def drift(found: Counted, alpha: float) -> ProfileCheck:
    """Value: agreement with the others in the later half of an annotator's answers minus that in the earlier half.

    Tested two-sided by the correlation of agreement beyond chance with the order of answers (Student's t).
    """
    people = len(found.people)
    p, value, half = (np.full(people, np.nan) for _ in range(3))
    n, words = np.zeros(people, dtype=np.int64), [""] * people
    for i in range(people):
        rows = np.flatnonzero((found.person == i) & ~np.isnan(found.gain))
        gain = found.gain[rows[np.argsort(found.moment[rows], kind="stable")]]
        n[i] = len(gain)
        if len(gain) < 2 * LEAST or gain.min() == gain.max():
            continue
        early, late = gain[: len(gain) // 2], gain[len(gain) // 2 :]
        value[i] = late.mean() - early.mean()
        half[i] = 1.96 * math.sqrt(late.var(ddof=1) / len(late) + early.var(ddof=1) / len(early))
        r = float(np.corrcoef(np.arange(len(gain)), gain)[0, 1])
        t = abs(r) * math.sqrt((len(gain) - 2) / max(1 - r * r, 1e-12))
        p[i] = min(1.0, 2 * float(_t_below(np.array([-t]), np.array([len(gain) - 2]))[0]))
        words[i] = f"agreement with the others changed by {value[i]:+.2f} from the earlier to the later half"
    note = "" if (~np.isnan(p)).any() else f"nobody answered {2 * LEAST} tasks that others answered"
    low, high = value - half, value + half
    return ProfileCheck("drift", found.people, value, low, high, n, p, holm(p, alpha), tuple(words), note)


def _t_below(t: Array, freedom: Array) -> Array:
    from scipy.special import stdtr

    found: Array = stdtr(np.maximum(freedom, 1), t)
    return found

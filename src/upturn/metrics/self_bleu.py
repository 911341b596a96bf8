"""Self-BLEU: similarity of the samples to each other by shared n-grams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key, spread_rows
from upturn.metrics._grams import Unit, grams, units
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import subsample_masks
from upturn.types import Array, Measurement

_LEAST = 8
_NONE = 0.1  # matches where there are none: the first smoothing of Chen & Cherry 2014, as Self-BLEU's authors have it


@dataclass(frozen=True)
class SelfBleu(Metric):
    """Mean BLEU of each sample with all others as its references: 1 is all equal, lower is more varied.

    Zhu et al., SIGIR 2018 ("Texygen"); BLEU of Papineni et al., ACL 2002, with even weights up to ``n``-grams and their
    brevity penalty by the reference of nearest length. Where no n-gram of a length matches, 0.1 counts as matched. It
    rises with the number of samples: compare equal numbers only. All references at once cost no more than the counting
    of n-grams, since the greatest count among the others is the greatest or the second greatest of all. The interval
    is by subsampling whole prompts.
    """

    n: int = 4
    unit: Unit = "words"
    at_most: int = 1000  # samples, evenly spaced

    title: ClassVar[str] = "Self-BLEU"
    meaning: ClassVar[str] = "How much samples resemble each other: 1 where all are equal, lower is more varied."
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    better: ClassVar[Better] = "lower"

    def __post_init__(self) -> None:
        if self.n < 1 or self.at_most < _LEAST:
            raise ValueError(f"n is at least 1, at_most at least {_LEAST}")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        count = len(evidence.samples)
        if count < _LEAST:
            raise UndefinedMetric(f"{count} samples; at least {_LEAST} are needed")
        rows = spread_rows(count, self.at_most)
        texts = units(evidence.samples.content[rows], self.unit)
        lengths = np.array([len(text) for text in texts])
        if not lengths.any():
            raise UndefinedMetric("every sample is empty")
        counts = [Counts.of(texts, n) for n in range(1, self.n + 1)]

        def at(masks: Array) -> Array:
            return np.array([np.nanmean(scores(counts, lengths, mask)) for mask in masks])

        each = scores(counts, lengths, np.ones(len(rows), dtype=bool))
        low, high = subsample_masks(
            at, len(rows), metric_key(evidence, "self_bleu"), clusters=evidence.samples.group[rows]
        )
        whole = len(rows) == count
        note = "" if whole else f"{len(rows)} of {count} samples are used"
        return Measurement(
            float(each.mean()), max(low, 0.0), min(high, 1.0), len(rows), each if whole else None, note
        )


@dataclass(frozen=True)
class Counts:
    """How often each text has each of its n-grams: pairs, sorted by n-gram and falling count."""

    text: Array
    gram: Array
    count: Array
    total: Array  # (N,) n-grams of each text

    @staticmethod
    def of(texts: list[list[str]], n: int) -> Counts:
        found, offsets = grams(texts, n)
        total = np.diff(offsets)
        owner = np.repeat(np.arange(len(texts)), total)
        pairs, count = np.unique(found * len(texts) + owner, return_counts=True)
        gram, text = np.divmod(pairs, len(texts))
        order = np.lexsort((text, -count, gram))
        return Counts(text[order], gram[order], count[order], total)

    def matched(self, mask: Array) -> Array:
        """(N,) n-grams of each text that are matched by the others, of those that ``mask`` keeps: clipped counts."""
        kept = mask[self.text]
        text, gram, count = self.text[kept], self.gram[kept], self.count[kept]
        first = np.diff(gram, prepend=-1) != 0
        start = np.flatnonzero(first)[np.cumsum(first) - 1]
        # the greatest count among the others: of the first of its n-gram the second's, of the rest the first's
        second = np.minimum(start + 1, len(count) - 1)
        other = np.where(first, np.where(gram[second] == gram, count[second], 0), count[start])
        # a first without a second is its own second
        other[first & (second == np.arange(len(count)))] = 0
        clipped = np.minimum(count, other)
        return np.bincount(text, weights=clipped, minlength=len(mask))


def scores(counts: list[Counts], lengths: Array, mask: Array) -> Array:
    """(N,) BLEU of each text against the others, of those that ``mask`` keeps; NaN for the rest."""
    logs = np.zeros(len(lengths))
    for each in counts:
        matched, total = each.matched(mask), np.maximum(each.total, 1)
        logs += np.log(np.where(matched > 0, matched, _NONE) / total) / len(counts)
    own = lengths[mask]
    nearest = np.zeros(len(lengths))
    nearest[mask] = _nearest_other(own)
    with np.errstate(divide="ignore"):
        brevity = np.where(lengths > nearest, 0.0, 1 - nearest / np.maximum(lengths, 1))
    found = np.exp(logs + brevity)
    found[(counts[0].matched(mask) == 0) | (lengths == 0)] = 0.0
    found[~mask] = math.nan
    return found


def _nearest_other(lengths: Array) -> Array:
    """(N,) of the other lengths the nearest one, of two as near the shorter."""
    order = np.argsort(lengths, kind="stable")
    ranked = lengths[order].astype(np.float64)
    below = np.concatenate([[-np.inf], ranked[:-1]])
    above = np.concatenate([ranked[1:], [np.inf]])
    found = np.empty(len(lengths))
    found[order] = np.where(ranked - below <= above - ranked, below, above)
    return found

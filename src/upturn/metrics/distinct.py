"""How many of the n-grams are different."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Literal

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._silence import CannotSpeak, speaks_or_says_why
from upturn.protocols import Evidence
from upturn.statistics.intervals import subsample
from upturn.types import Array, Measurement, Samples

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Distinct:
    """distinct-n: different n-grams over all n-grams of the samples (Li et al., NAACL 2016, section 5); higher is more.

    It falls with the number of samples, so compare only equal numbers of them. The interval is by subsampling whole
    prompts without replacement, because a bootstrap repeats samples, and repeated samples are what is measured.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    better: ClassVar[str] = "higher"

    n: int = 2
    unit: Literal["words", "characters"] = "words"  # words: letters and digits together, each other sign by itself

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError("n is at least 1")

    @speaks_or_says_why
    def measure(self, evidence: Evidence) -> Measurement:
        grams, offsets = self._grams(evidence.samples)
        if not len(grams):
            raise CannotSpeak(f"no sample has {self.n} {self.unit}")
        names = int(grams.max()) + 1
        lengths = np.diff(offsets)

        def share(rows: Array) -> float:
            inside = np.zeros(len(lengths), dtype=bool)
            inside[rows] = True
            taken = grams[np.repeat(inside, lengths)]
            seen = np.zeros(names, dtype=bool)
            seen[taken] = True
            return float(seen.sum() / len(taken)) if len(taken) else float("nan")

        count = len(evidence.samples)
        low, high = subsample(
            share, count, metric_key(evidence, "distinct"), clusters=evidence.samples.group
        )
        short = int((lengths == 0).sum())
        note = f"{short} of {count} samples are shorter than {self.n} {self.unit}" if short else ""
        details = {"different": names, "all": len(grams)}
        return Measurement(names / len(grams), max(0.0, low), min(1.0, high), count, note=note, details=details)

    def _grams(self, samples: Samples) -> tuple[Array, Array]:
        """The n-grams of all samples, as numbers from 0 without gaps, and (N + 1,) where each sample's begin."""
        texts = [str(content) for content in samples.content]
        units = [_WORD.findall(text) for text in texts] if self.unit == "words" else [list(text) for text in texts]
        sizes = np.array([len(row) for row in units], dtype=np.int64)
        place: dict[str, int] = {}
        flat = np.fromiter(
            (place.setdefault(unit, len(place)) for unit in chain.from_iterable(units)), np.int64, int(sizes.sum())
        )
        lengths = np.maximum(sizes - self.n + 1, 0)
        ends = np.cumsum(sizes)
        starts = np.repeat(ends - sizes, lengths) + _within(lengths)
        grams = np.zeros(len(starts), dtype=np.int64)
        for i in range(self.n):  # renumbered at each step, so that numbers stay small whatever n
            grams = np.unique(grams * max(len(place), 1) + flat[starts + i], return_inverse=True)[1].reshape(-1)
        return grams, np.concatenate([[0], np.cumsum(lengths)])


def _within(lengths: Array) -> Array:
    """0, 1, … within each row, rows one after the other."""
    place: Array = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return place

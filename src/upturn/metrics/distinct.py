"""How many of the n-grams are different."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key
from upturn.metrics._grams import Unit, grams, units
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import subsample
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class Distinct(Metric):
    """distinct-n: different n-grams over all n-grams of the samples (Li et al., NAACL 2016, section 5); higher is more.

    It falls with the number of samples, so compare only equal numbers of them. The interval is by subsampling whole
    prompts without replacement, because a bootstrap repeats samples, and repeated samples are what is measured.
    """

    title: ClassVar[str] = "Distinct phrases"
    meaning: ClassVar[str] = "Share of short word sequences that are not repeats: higher is more varied."
    kinds: ClassVar[frozenset[str]] = frozenset({"text"})
    better: ClassVar[Better] = "higher"

    n: int = 2
    unit: Unit = "words"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError("n is at least 1")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        found, offsets = grams(units(evidence.samples.content, self.unit), self.n)
        if not len(found):
            raise UndefinedMetric(f"no sample has {self.n} {self.unit}")
        names = int(found.max()) + 1
        lengths = np.diff(offsets)

        def share(rows: Array) -> float:
            inside = np.zeros(len(lengths), dtype=bool)
            inside[rows] = True
            taken = found[np.repeat(inside, lengths)]
            seen = np.zeros(names, dtype=bool)
            seen[taken] = True
            return float(seen.sum() / len(taken)) if len(taken) else float("nan")

        count = len(evidence.samples)
        low, high = subsample(
            share, count, metric_key(evidence, "distinct"), clusters=evidence.samples.group
        )
        short = int((lengths == 0).sum())
        note = f"{short} of {count} samples are shorter than {self.n} {self.unit}" if short else ""
        details = {"different": names, "all": len(found)}
        return Measurement(names / len(found), max(0.0, low), min(1.0, high), count, note=note, details=details)

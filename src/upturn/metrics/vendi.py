"""Effective number of different samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from upturn.metrics._embedded import metric_key, real_features, sample_features, spread_rows, strips
from upturn.metrics._spectrum import Spectrum
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.seeds import generator, key
from upturn.statistics.intervals import bootstrap_mean, subsample
from upturn.types import Array, Measurement

_CUBED = 500  # samples whose own kernel matrix is taken apart: 0.1 s
_SCALE = 500  # training samples that the bandwidth is the median distance of


@dataclass(frozen=True)
class Vendi(Metric):
    """Vendi score: the exponential of the entropy of the eigenvalues of K/n, K the kernel of the features.

    Friedman & Dieng, TMLR 2023, definition 3.1: n for n dissimilar samples, 1 for copies. ``order`` is q of its
    generalisations (Pasarkar & Dieng, AISTATS 2024): Rényi's entropy in place of Shannon's, so that small orders count
    what is rare in full and infinity only what is most common. Order 0 is the number of directions that occur at all.

    kernel     ``rbf`` exp(-d^2 / 2h^2); ``fourier`` the same by random frequencies (Rahimi & Recht 2007; Ospanov et al.
               2024), for any number of samples; ``cosine`` for features whose direction alone has meaning, any number
    bandwidth  h, in units of feature distance; None: the median distance of training samples, the same in every round
    at_most    samples, evenly spaced over the evaluation; None: 500 for rbf and order 0, whose cost grows as n^3, all
               for the others, whose cost grows as n
    frequencies  of ``fourier``: its error falls as one over their root, and no score is above twice their number

    It grows with n: compare equal n only; ``real`` in the details is what as many training samples give. The interval
    is the mean of influence values (infinitesimal jackknife, on the logarithm), since duplicates in a bootstrap would
    look like lost diversity; at order 0, which has no derivative, it is by subsampling.
    """

    kernel: Literal["rbf", "cosine", "fourier"] = "rbf"  # the median heuristic works for points and for images
    bandwidth: float | None = None
    at_most: int | None = None
    order: float = 1.0
    frequencies: int = 1024

    title: ClassVar[str] = "Vendi score"
    meaning: ClassVar[str] = "Effective number of different samples: copies count once, so that higher is more varied."
    reference: ClassVar[tuple[str, str] | None] = ("real", "as many real samples")
    better: ClassVar[Better] = "higher"
    by_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"bandwidth is {self.bandwidth}: it must be above 0")
        if self.at_most is not None and self.at_most < 2:
            raise ValueError(f"at_most is {self.at_most}: it must be at least 2")
        if not self.order >= 0:
            raise ValueError(f"order is {self.order}: it must be at least 0 (.inf for infinity)")
        if self.frequencies < 1:
            raise ValueError(f"frequencies is {self.frequencies}: it must be at least 1")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        generated = sample_features(evidence)
        cubed = self.kernel == "rbf" or self.order == 0
        rows = spread_rows(len(generated), self.at_most or (_CUBED if cubed else len(generated)))
        if len(rows) < 2:
            raise UndefinedMetric("1 sample; at least 2 are needed")
        train = real_features(evidence.tools, "train", 0 if self.kernel == "cosine" or self.bandwidth else 2)
        width = 1.0 if self.kernel == "cosine" else self.bandwidth or _median_distance(train)
        if not width > 0:
            raise UndefinedMetric("the training samples have a median distance of 0: give a bandwidth")
        found = self._spectrum(generated[rows], width)
        entropy, where, groups = found.entropy(self.order), metric_key(evidence, "vendi"), evidence.samples.group[rows]
        if self.order == 0:
            def counted(part: Array) -> float:
                return self._spectrum(generated[rows[part]], width).entropy(0)
            low, high = subsample(counted, len(rows), where, clusters=groups)
        else:
            low, high = bootstrap_mean(entropy + found.influence(self.order), where, clusters=groups)
        details: dict[str, object] = {"kernel": self.kernel, "order": self.order if self.order < math.inf else "inf"}
        if self.kernel != "cosine":
            details["bandwidth"] = float(width)
        if len(train) >= len(rows):
            as_many = train[spread_rows(len(train), len(rows))]
            details["real"] = float(np.exp(self._spectrum(as_many, width).entropy(self.order)))
        note = "" if len(rows) == len(generated) else f"{len(rows)} of {len(generated)} samples are used"
        ends = np.exp([low, high])
        return Measurement(
            float(np.exp(entropy)), max(float(ends[0]), 1.0), float(ends[1]), len(rows), note=note, details=details
        )

    def _spectrum(self, features: Array, width: float) -> Spectrum:
        if self.kernel == "rbf":
            return Spectrum.of_similarity(np.exp(_squared_distances(features) / (-2 * width**2)))
        mapped = _directions(features) if self.kernel == "cosine" else _waves(features, width, self.frequencies)
        dims = features.shape[1] if self.kernel == "cosine" else 2 * self.frequencies
        if len(features) <= dims:
            every = np.concatenate(list(mapped()))
            return Spectrum.of_similarity(every @ every.T)
        return Spectrum.of_features(mapped)


def _directions(features: Array) -> Callable[[], Iterator[Array]]:
    still = sum(int((~part.any(axis=1)).sum()) for part in strips(features))
    if still:
        raise UndefinedMetric(f"{still} samples have features that are all 0, without a direction")

    def mapped() -> Iterator[Array]:
        for part in strips(features):
            wide = part.astype(np.float64)
            yield wide / np.linalg.norm(wide, axis=1, keepdims=True)

    return mapped


def _waves(features: Array, width: float, count: int) -> Callable[[], Iterator[Array]]:
    """cos and sin of ``count`` random projections, over sqrt(count): their products have the mean exp(-d^2 / 2h^2)."""
    directions = generator(key("vendi", "fourier")).standard_normal((features.shape[1], count)) / width

    def mapped() -> Iterator[Array]:
        for part in strips(features):
            phase = part.astype(np.float64) @ directions
            yield np.concatenate([np.cos(phase), np.sin(phase)], axis=1) / math.sqrt(count)

    return mapped


def _squared_distances(features: Array) -> Array:
    from scipy.spatial.distance import cdist

    wide = features.astype(np.float64)
    found: Array = cdist(wide, wide, "sqeuclidean")
    return found


def _median_distance(train: Array) -> float:
    some = train[spread_rows(len(train), _SCALE)]
    squared = _squared_distances(some)[np.triu_indices(len(some), 1)]
    return float(np.sqrt(np.median(squared)))

"""MAUVE: area under the divergence curve between samples and real data."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import Real, metric_key, real_features, sample_features, spread_rows
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import subsample_masks
from upturn.statistics.memo import remembered
from upturn.types import Array, Measurement

_LEAST = 100  # of either: ten cells
_A_CELL = 10  # rows of the smaller set a cell: the reference's
_EXPLAINED = 0.9  # of the variance that principal components keep: the reference's
_WEIGHTS = np.linspace(1e-6, 1 - 1e-6, 25)  # of the samples in a mixture: the reference's points on the curve
_SCALE = 5.0  # c of the paper


@dataclass(frozen=True)
class Mauve(Metric):
    """Area under the divergence curve between samples and real data on quantised features: 1 is equal, 0 disjoint.

    Pillutla et al., NeurIPS 2021 ("MAUVE"), section 2: for mixtures R of both, exp(-c KL(Q|R)) and exp(-c KL(P|R)),
    c = 5. As in their package, features are scaled to length 1 and reduced to 90% of their variance, and the cells are
    those of k-means on both sets, a tenth as many as rows. The curve's summary without c is ``frontier`` in the
    details: the integral of the two KL divergences, 0 equal, 1 disjoint (Liu et al., NeurIPS 2021). Both grow with the
    noise of the cells: ``floor`` in the details is MAUVE of training data against the same real data.

    For text, use the features of an encoder. The interval is over the samples, by subsampling, the
    cells held fixed.
    """

    against: Real = "held_out"
    at_most: int = 5000  # of either, evenly spaced

    title: ClassVar[str] = "MAUVE"
    meaning: ClassVar[str] = "How closely the samples cover the real data, and only it: 1 is the same distribution."
    reference: ClassVar[tuple[str, str] | None] = ("floor", "real training data")
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        if self.at_most < _LEAST:
            raise ValueError(f"at_most is {self.at_most}: it must be at least {_LEAST}")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        generated = sample_features(evidence, _LEAST)
        real = real_features(evidence.tools, self.against, _LEAST)
        real, rows = real[spread_rows(len(real), self.at_most)], spread_rows(len(generated), self.at_most)
        of_generated, of_real, count = _cells(generated[rows], real)
        shares = np.bincount(of_real, minlength=count) / len(of_real)
        each = np.eye(count)[of_generated]

        def at(masks: Array) -> Array:
            picked = masks.astype(np.float64) @ each
            return area(picked / picked.sum(axis=1, keepdims=True), shares)

        value = float(at(np.ones((1, len(rows)), dtype=bool))[0])
        low, high = subsample_masks(
            at, len(rows), metric_key(evidence, "mauve"), clusters=evidence.samples.group[rows]
        )
        details: dict[str, object] = {
            "frontier": frontier(np.bincount(of_generated, minlength=count) / len(of_generated), shares),
            "cells": count, "real": len(real),
        }
        other: Real = "train" if self.against == "held_out" else "held_out"
        with suppress(UndefinedMetric):
            rest = real_features(evidence.tools, other, len(rows))
            of_rest, again, count = _cells(rest[spread_rows(len(rest), len(rows))], real)
            shares_of = [np.bincount(cells, minlength=count) / len(cells) for cells in (of_rest, again)]
            details["floor"] = float(area(shares_of[0][None], shares_of[1])[0])
        note = "" if len(rows) == len(generated) else f"{len(rows)} of {len(generated)} samples are used"
        return Measurement(value, max(low, 0.0), min(high, 1.0), len(rows), note=note, details=details)


def divergence_curve(q: Array, p: Array) -> tuple[Array, Array]:
    """(R, W) exp(-c KL(q | r)) and exp(-c KL(p | r)), r = w q + (1 - w) p, for shares ``q`` (R, C) and ``p`` (C,)."""
    mixed = _WEIGHTS[:, None] * q[:, None, :] + (1 - _WEIGHTS[:, None]) * p  # (R, W, C)

    def divergence(shares: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(shares > 0, shares * np.log(shares / mixed), 0.0)
        found: Array = terms.sum(axis=2)
        return found

    return np.exp(-_SCALE * divergence(q[:, None, :])), np.exp(-_SCALE * divergence(p))


def area(q: Array, p: Array) -> Array:
    """(R,) the area under each curve, from (0, 1) to (1, 0)."""
    found = np.empty(len(q))
    for start in range(0, len(q), 16):
        lacking, needless = divergence_curve(q[start : start + 16], p)
        ends = np.ones((len(lacking), 1))
        x = np.concatenate([1 - ends, lacking, ends], axis=1)
        y = np.concatenate([ends, needless, 1 - ends], axis=1)
        order = np.argsort(x, axis=1, kind="stable")
        found[start : start + 16] = np.trapezoid(
            np.take_along_axis(y, order, axis=1), np.take_along_axis(x, order, axis=1), axis=1
        )
    return found


def frontier(q: Array, p: Array) -> float:
    """2 * the integral over w of w KL(p | r) + (1 - w) KL(q | r), in closed form."""
    both = (q > 0) & (p > 0) & (np.abs(q - p) > 1e-12)
    alone = (q > 0) ^ (p > 0)
    a, b = q[both], p[both]
    inner = (a + b) / 4 - a * b * (np.log(a) - np.log(b)) / (2 * (a - b))
    return float(2 * (inner.sum() + (q + p)[alone].sum() / 4))


@remembered
def _cells(a: Array, b: Array) -> tuple[Array, Array, int]:
    """The cell of each row of both, and how many cells there are."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    both = np.concatenate([a, b]).astype(np.float64)
    lengths = np.linalg.norm(both, axis=1, keepdims=True)
    both /= np.where(lengths > 0, lengths, 1)
    if np.ptp(both, axis=0).max() > 0:
        both = PCA(_EXPLAINED, svd_solver="full").fit_transform(both)
    count = min(len(a), len(b)) // _A_CELL
    cells = KMeans(count, n_init=5, random_state=0).fit_predict(both)
    return cells[: len(a)], cells[len(a) :], count

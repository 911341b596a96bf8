"""Whether samples lie nearer to training data than new real data does: the C_T test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from upturn.metrics._embedded import metric_key, real_features, sample_features, spread_rows
from upturn.metrics._undefined import UndefinedMetric, defined_or_note
from upturn.protocols import Better, Evidence, Metric
from upturn.statistics.intervals import bootstrap_mean
from upturn.statistics.memo import remembered
from upturn.statistics.neighbours import nearest
from upturn.types import Array, Measurement

_CLUSTERED = 10_000  # training rows that the cells are computed from
_LEAST = 20  # samples and held-out data in a cell that is counted: the normal approximation of U holds from there


@dataclass(frozen=True)
class Copying(Metric):
    """C_T of Meehan, Chaudhuri & Dasgupta, AISTATS 2020 ("A non-parametric test to detect data-copying").

    Space is cut into ``cells`` by k-means on training data. In each, distances to the nearest training sample of the
    same cell are ranked, samples' against held-out data's: Mann and Whitney's U as a z-score. C_T is their mean
    weighted by the held-out data of the cells. About 0 for a model as far from its training data as new data is; far
    below 0 it copies; far above it underfits. Under no difference its deviation is ``chance`` in the details, and ``p``
    is the probability of so low a value.

    Cells with fewer than 20 samples or 20 held-out ones are left out and counted (theirs: fewer than a share tau of
    samples). No correction for continuity. The interval is over the samples, by the mean of their ranks.
    """

    cells: int = 3  # Jiralerspong et al. 2023 use it so, for comparison; few, so that each has its 20

    title: ClassVar[str] = "Copying test"
    meaning: ClassVar[str] = (
        "Test statistic of whether samples lie nearer to training data than unseen real data does: far below 0 "
        "they are copies."
    )
    better: ClassVar[Better] = "neither"

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ValueError(f"cells is {self.cells}: it must be at least 1")

    @defined_or_note
    def measure(self, evidence: Evidence) -> Measurement:
        from scipy.special import ndtr

        train = real_features(evidence.tools, "train", max(2 * self.cells, 2))
        held_out, generated = real_features(evidence.tools, "held_out", _LEAST), sample_features(evidence)
        centres = _centres(train, self.cells)
        places = [nearest(part, centres)[1] for part in (train, held_out, generated)]
        found = [
            Cell.of(*(part[place == cell] for part, place in zip((train, held_out, generated), places, strict=True)))
            for cell in range(len(centres))
        ]
        counted = [cell for cell, one in enumerate(found) if one is not None]
        if not counted:
            raise UndefinedMetric(
                f"no cell has {_LEAST} samples and {_LEAST} held-out ones; lower 'cells' or sample more"
            )
        weights = np.array([float((places[1] == cell).sum()) for cell in counted])
        weights /= weights.sum()
        value, spread = 0.0, np.zeros(len(generated))
        for cell, weight in zip(counted, weights.tolist(), strict=True):
            one = found[cell]
            assert one is not None
            value += weight * one.z
            inside = places[2] == cell
            # a mean over the cell's samples, written as one over all: each counts len(generated) / (cell's) times
            spread[inside] = weight * (one.each - one.z) * len(generated) / inside.sum()
        low, high = bootstrap_mean(value + spread, metric_key(evidence, "copying"), clusters=evidence.samples.group)
        chance = float(np.sqrt((weights**2).sum()))
        details = {
            "chance": chance, "p": float(ndtr(value / chance)), "cells": [cell.z if cell else None for cell in found],
        }
        gone = len(found) - len(counted)
        note = f"{gone} of {len(found)} cells have too few samples or held-out ones" if gone else ""
        return Measurement(value, low, high, len(generated), note=note, details=details)


@dataclass(frozen=True)
class Cell:
    """The z-score of U, and (n,) what each sample adds to it: ``z`` is their mean."""

    z: float
    each: Array

    @staticmethod
    def of(train: Array, held_out: Array, generated: Array) -> Cell | None:
        n, m = len(generated), len(held_out)
        if n < _LEAST or m < _LEAST or not len(train):
            return None
        usual, own = np.sort(nearest(held_out, train)[0]), nearest(generated, train)[0]
        below, upto = np.searchsorted(usual, own, "left"), np.searchsorted(usual, own, "right")
        wins = (below + upto) / 2 / m  # the share of held-out distances that each sample's exceeds, ties half
        each = (wins - 0.5) * n * m / np.sqrt(n * m * (n + m + 1) / 12)
        return Cell(float(each.mean()), each)


@remembered
def _centres(train: Array, cells: int) -> Array:
    """(cells, D) of k-means, the same in every round."""
    from sklearn.cluster import KMeans

    some = train[spread_rows(len(train), _CLUSTERED)]
    found: Array = KMeans(cells, n_init=10, random_state=0).fit(some).cluster_centers_
    return found

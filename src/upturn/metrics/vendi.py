"""Effective number of different samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from upturn.metrics._embedded import made_features, metric_key, real_features, spread_rows
from upturn.metrics._neighbours import blocks
from upturn.metrics._silence import CannotSpeak, speaks_or_says_why
from upturn.protocols import Evidence
from upturn.statistics.intervals import bootstrap_mean
from upturn.types import Array, Measurement


@dataclass(frozen=True)
class Vendi:
    """Vendi score: the exponential of the entropy of the eigenvalues of K/n, K the kernel of the features.

    Friedman & Dieng, TMLR 2023, definition 3.1: n for n samples without likeness, 1 for copies. ``rbf`` takes
    exp(-d^2 / 2h^2) with h the median distance of training samples unless ``bandwidth`` is given, so the scale is the
    same in every round; ``cosine`` is for features whose direction alone has meaning. It grows with n: compare equal n
    only; ``real`` in the details is what as many training samples give.

    The interval is the mean of influence values (infinitesimal jackknife, on the logarithm): duplicates in a bootstrap
    would look like lost diversity.
    """

    kernel: Literal["rbf", "cosine"] = "rbf"  # the median heuristic works for points and images alike
    bandwidth: float | None = None  # in units of feature distance
    at_most: int = 500  # samples, evenly spaced over the evaluation: n^3 operations

    kinds: ClassVar[frozenset[str]] = frozenset({"text", "image", "points"})
    better: ClassVar[str] = "higher"
    by_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bandwidth is not None and self.bandwidth <= 0:
            raise ValueError(f"bandwidth is {self.bandwidth}: it must be above 0")
        if self.at_most < 2:
            raise ValueError(f"at_most is {self.at_most}: it must be at least 2")

    @speaks_or_says_why
    def measure(self, evidence: Evidence) -> Measurement:
        made = made_features(evidence)
        rows = spread_rows(len(made), self.at_most)
        train = real_features(evidence.tools, "train", 2 if self.kernel == "rbf" and self.bandwidth is None else 0)
        train = train[spread_rows(len(train), len(rows))]
        width = self.bandwidth or (_median_distance(train) if self.kernel == "rbf" else 1.0)
        if not width > 0:
            raise CannotSpeak("the training samples have a median distance of 0: give a bandwidth")
        entropy, influence = entropy_and_influence(self._similarity(made[rows], width))
        low, high = bootstrap_mean(
            entropy + influence, metric_key(evidence, "vendi"), clusters=evidence.samples.group[rows]
        )
        details: dict[str, object] = {"kernel": self.kernel}
        if self.kernel == "rbf":
            details["bandwidth"] = float(width)
        if len(train) == len(rows):
            details["real"] = float(np.exp(entropy_of(self._similarity(train, width))))
        value, ends = float(np.exp(entropy)), np.exp([low, high])
        return Measurement(value, max(float(ends[0]), 1.0), float(ends[1]), len(rows), details=details)

    def _similarity(self, features: Array, width: float) -> Array:
        """(n, n) with ones on the diagonal."""
        if self.kernel == "rbf":
            squares = np.concatenate([block for _, block in blocks(features, features)])
            np.fill_diagonal(squares, 0.0)
            return np.asarray(np.exp(squares / (-2 * width**2)))
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        if bool((lengths == 0).any()):
            raise CannotSpeak(f"{int((lengths == 0).sum())} samples have features that are all 0, without a direction")
        unit = features / lengths
        return np.asarray(unit @ unit.T)


def _median_distance(features: Array) -> float:
    squares = np.concatenate([block for _, block in blocks(features, features)])
    return float(np.sqrt(np.median(squares[np.triu_indices(len(features), 1)])))


def entropy_of(similarity: Array) -> float:
    """Entropy in nats of the eigenvalues of K/n; the Vendi score is its exponential."""
    values = np.linalg.eigvalsh(similarity / len(similarity))
    values = values[values > 0]
    return float(-(values * np.log(values)).sum())


def entropy_and_influence(similarity: Array) -> tuple[float, Array]:
    """The entropy, and (n,) its derivative in the weight of each sample (mean 0).

    With rho = sum_i w_i phi_i phi_i^T the derivative of -tr(rho log rho) is -phi_i^T log(rho) phi_i - 1, and
    phi_i^T v_l = sqrt(n lambda_l) U_il for the eigenvectors U of K/n.
    """
    n = len(similarity)
    values, vectors = np.linalg.eigh(similarity / n)
    positive = values > 0
    terms = values[positive] * np.log(values[positive])
    entropy = float(-terms.sum())
    return entropy, -n * (vectors[:, positive] ** 2 @ terms) - entropy

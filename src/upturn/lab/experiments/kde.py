"""Experiment: a kernel density estimate is sampled and estimated again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, reported_rounds, setting, source
from upturn.lab.experiments._policies import (
    ABOUT_LAMBDA,
    ABOUT_POLICY,
    OF_MOMENTS,
    POLICIES,
    Policy,
    check,
    moments,
    policy_title,
    resolved,
    rounds,
)
from upturn.lab.rows import Formula, LabRow, measured
from upturn.theory import Moments
from upturn.types import Array

VARIANCE, DRIFT, VALLEY = "variance of the points", "drift of the mean, squared", "mass of the valley"
_PEAK = 0.9  # two peaks at ±0.9 of width √(1-0.81): a variance of 1
_VALLEY = 0.3  # |x| below it lies between the peaks


@dataclass
class Kde(AtOnce):
    """A kernel density estimate, sampled and estimated again: each round convolves with the kernel once more."""

    n: list[int] = setting([100], "samples a round")
    bandwidth: list[float] = setting([0.2], "of the kernel, in standard deviations of the data; 0: Silverman's rule")
    data: list[Literal["normal", "peaks"]] = setting(["peaks"], "normal, or two peaks; both of variance 1")
    rounds: int = setting(30, "rounds; round 1 is the estimate from real samples")
    replicas: int = setting(2000, "independent repetitions of each cell")
    policy: list[Policy] = setting([*POLICIES], ABOUT_POLICY)
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "A kernel density estimated from its own samples"
    question: ClassVar[str] = (
        "Each estimate adds the variance of its kernel, while finite samples lose some. Which effect is larger, and "
        "do the peaks of the data survive?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        **OF_MOMENTS,
        "adaptive": Formula(
            "s_t = (1-1/n)((1-1/n)(1+κ))^{t-1}, κ = (4/(3n))^{2/5}", "Silverman's h² = κs, replace.",
            "theory.adaptive_kernel",
        ),
    }

    def __post_init__(self) -> None:
        check(self.n, self.rounds, self.replicas, self.lam)
        if min(self.bandwidth) < 0:
            raise ValueError("a bandwidth must not be below 0")

    def cells(self) -> list[Cell]:
        return resolved(super().cells())

    def run(self, cells: Sequence[Cell]) -> Chunk:
        return Chunk([row for place, cell in enumerate(cells) for row in self._rows(place, cell)])

    def _rows(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, n, at = source("kde", cell, self.seed), int(cell["n"]), reported_rounds(self.rounds)
        path = rounds(
            cell["policy"], cell["lam"], rng, lambda: drawn(rng, cell["data"], self.replicas, n),
            lambda points, weights: _estimated(points, weights, cell["bandwidth"], n),
            lambda model: model.sample(rng, n),
        )
        for t, model in enumerate(islice(path, self.rounds), start=1):
            if t in at:
                predicted, by = _expected(cell, t)
                yield measured(place, VARIANCE, t, model.variance, predicted.variance, by)
                yield measured(place, DRIFT, t, model.mean**2, predicted.drift, by)
                yield measured(place, VALLEY, t, np.abs(model.sample(rng, n)[:, :, 0]).__lt__(_VALLEY).mean(axis=1))

    def charts(self) -> Sequence[Chart]:
        series = "bandwidth" if len(self.bandwidth) > 1 else "data"
        return [
            Chart(
                "Variance of the points", "The kernel adds h² in every round; the loss from finite samples grows too, "
                "so replace settles at (n-1)h² for any data.", VARIANCE, series=series,
                panels=("policy",),
            ),
            Chart("Drift of the mean, squared", "In variances of the data.", DRIFT, series=series, panels=("policy",)),
            Chart(
                "Mass of the valley", f"Share of samples with |x| below {_VALLEY}, between the peaks: it fills up.",
                VALLEY, series=series, panels=("policy",), where={"data": "peaks"},
            ),
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        last = [
            row for row in table
            if row["quantity"] == VARIANCE and row["round"] == self.rounds
            and (row["bandwidth"], row["data"]) == (self.bandwidth[0], self.data[0])
        ]
        listed = ", ".join(
            f"{row['simulation']:.2f} under {policy_title(row['policy'], row['lam'])}" for row in last[:6]
        )
        return [f"After {self.rounds} rounds the data's variance of 1 has become {listed}."]


class KernelDensity(NamedTuple):
    """Kernel densities of R replicas: weighted points (R, N), one width each (R,)."""

    points: Array
    weights: Array  # (N,)
    width: Array
    mean: Array  # (R,)
    variance: Array  # (R,) of the points alone

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        """(R, n, 1)"""
        count = len(self.points)
        picked = rng.choice(len(self.weights), (count, n), p=self.weights)
        noise = self.width[:, None] * rng.standard_normal((count, n))
        return np.asarray((self.points[np.arange(count)[:, None], picked] + noise)[:, :, None])


def drawn(rng: np.random.Generator, data: str, replicas: int, n: int) -> Array:
    """(R, n, 1) of mean 0 and variance 1."""
    noise = rng.standard_normal((replicas, n, 1))
    if data == "normal":
        return noise
    return rng.choice([-_PEAK, _PEAK], (replicas, n, 1)) + math.sqrt(1 - _PEAK**2) * noise


def _estimated(points: Array, weights: Array, bandwidth: float, n: int) -> KernelDensity:
    flat = points[:, :, 0]
    mean = flat @ weights
    variance = np.square(flat - mean[:, None]) @ weights
    width = np.full(len(flat), bandwidth) if bandwidth else np.sqrt(theory.adaptive_kernel(n) * variance)
    return KernelDensity(flat, weights, width, mean, variance)


def _expected(cell: Cell, t: int) -> tuple[Moments, str]:
    n, policy, h = int(cell["n"]), str(cell["policy"]), float(cell["bandwidth"])
    if h:
        return moments(policy, n, t, cell["lam"], kernel=h * h)
    if policy != "replace":
        return Moments(math.nan, math.nan), ""
    factor = (1 - 1 / n) * (1 + theory.adaptive_kernel(n))
    return Moments((1 - 1 / n) * factor ** (t - 1), math.nan), "adaptive"

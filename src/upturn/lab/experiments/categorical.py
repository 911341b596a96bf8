"""A discrete distribution relearned from its own draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, ClassVar, Literal

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, reported_rounds, setting, source
from upturn.lab.experiments._policies import (
    ABOUT_LAMBDA,
    ABOUT_POLICY,
    BLENDS,
    OF_SHARES,
    POLICIES,
    Policy,
    check,
    diversity,
    gone,
    policy_title,
    real_weight,
    resolved,
)
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

DIVERSITY, LOST, ENTROPY = "diversity", "modes lost", "entropy kept"


@dataclass
class Categorical(AtOnce):
    """A discrete distribution, relearned from n of its own draws: diversity and modes lost to chance alone."""

    n: list[int] = setting([100], "draws a round")
    modes: list[int] = setting([8], "modes of the data")
    shape: list[Literal["uniform", "zipf"]] = setting(["uniform"], "uniform, or zipf (share 1/rank): a long tail")
    rounds: int = setting(20, "rounds; round 1 is learned from real draws")
    replicas: int = setting(4000, "independent repetitions of each cell")
    policy: list[Policy] = setting([*POLICIES], ABOUT_POLICY)
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "A vocabulary that learns from itself"
    question: ClassVar[str] = (
        "A perfect learner of a discrete distribution still loses the values that its finite sample misses. How many, "
        "and what does real data in every round change?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = OF_SHARES

    def __post_init__(self) -> None:
        check(self.n, self.rounds, self.replicas, self.lam)
        if min(self.modes) < 2:
            raise ValueError("needs at least 2 modes")

    def cells(self) -> list[Cell]:
        return resolved(super().cells())

    def run(self, cells: Sequence[Cell]) -> Chunk:
        return Chunk([row for place, cell in enumerate(cells) for row in self._rows(place, cell)])

    def _rows(self, place: int, cell: Cell) -> Iterator[LabRow]:
        start = shares(cell["shape"], cell["modes"])
        n, policy, lam = int(cell["n"]), str(cell["policy"]), float(cell["lam"])
        path = learned(source("categorical", cell, self.seed), start, n, policy, lam, self.replicas)
        at = reported_rounds(self.rounds)
        entropy = _entropy(start[None])[0]
        for t, p in enumerate(islice(path, self.rounds), start=1):
            if t in at:
                expected, by = diversity(theory.heterozygosity(start), n, t, policy, lam)
                yield measured(place, DIVERSITY, t, 1 - np.square(p).sum(axis=1), expected, by)
                expected, by = gone(start, n, t, policy)
                rare = 0.0 if math.isnan(expected) else expected  # a rare count's variance is its mean
                yield measured(place, LOST, t, (p == 0).sum(axis=1), expected, by, variance=rare)
                yield measured(place, ENTROPY, t, _entropy(p) / entropy)

    def charts(self) -> Sequence[Chart]:
        series = "n" if len(self.n) > 1 else "lam"
        panels = ("policy", "shape", "modes")
        return [
            Chart("Diversity", "1 - Σp²: probability that two draws differ.", DIVERSITY, series=series, panels=panels),
            Chart("Modes lost", "Modes of probability 0.", LOST, series=series, panels=panels),
            Chart("Entropy kept", "As a share of the data's; no formula.", ENTROPY, series=series, panels=panels),
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        last = [row for row in table if row["quantity"] == LOST and row["round"] == self.rounds]
        return [
            f"{policy_title(row['policy'], row['lam']).capitalize()} loses {row['simulation']:.2f} of {row['modes']} "
            f"modes in {self.rounds} rounds at n = {row['n']}." for row in last if row["shape"] == self.shape[0]
        ][:5]


def shares(shape: str, modes: int) -> Array:
    """(modes,) of the data, the largest first."""
    weight = np.ones(modes) if shape == "uniform" else 1 / np.arange(1, modes + 1)
    return np.asarray(weight / weight.sum())


def learned(
    rng: np.random.Generator, start: Array, n: int, policy: str, lam: float, replicas: int
) -> Iterator[Array]:
    """(R, modes) probabilities of each round's model, from the first fit on n real draws."""
    w = real_weight(lam)
    real = rng.multinomial(n, np.tile(start, (replicas, 1))) / n
    pool = real
    p = rng.multinomial(n, pool) / n if policy == "accumulate_subsample" else pool
    for k in count(1):
        yield p
        generated = rng.multinomial(n, p) / n
        if policy in BLENDS:
            real = rng.multinomial(n, start, size=replicas) / n if policy == "fresh" else real
            p = w * real + (1 - w) * generated
        elif policy == "replace":
            p = generated
        else:
            pool = (k * pool + generated) / (k + 1)
            pool = pool / pool.sum(axis=1, keepdims=True)
            p = rng.multinomial(n, pool) / n if policy == "accumulate_subsample" else pool


def _entropy(p: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-np.where(p > 0, p * np.log(p), 0.0).sum(axis=1))

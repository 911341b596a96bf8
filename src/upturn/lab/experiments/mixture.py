"""Experiment: a Gaussian mixture is fitted by EM to its own samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, Cloud, reported_rounds, setting, source
from upturn.lab.experiments import _gaussian_mixtures
from upturn.lab.experiments._gaussian_mixtures import Mixtures
from upturn.lab.experiments._policies import (
    ABOUT_LAMBDA,
    ABOUT_POLICY,
    OF_MOMENTS,
    OF_SHARES,
    POLICIES,
    Policy,
    check,
    diversity,
    gone,
    moments,
    policy_title,
    resolved,
    rounds,
)
from upturn.lab.rows import Formula, LabRow, measured

VARIANCE, DRIFT, WITHIN = "variance, all modes together", "drift of the mean, squared", "variance within modes"
DIVERSITY, LOST = "diversity of the weights", "modes lost"
_RADIUS = 2.0  # of the ring of modes: Metz et al. 2017, as in the source `points`
_APART = 0.2  # standard deviation of a mode up to which eight of them do not touch: 7.6 of it between neighbours
_DEAD = 1e-6  # weight of a mode that is lost


@dataclass
class Mixture(AtOnce):
    """A mixture on a ring, fitted by EM to its own samples: modes are lost as a vocabulary loses words."""

    n: list[int] = setting([100], "samples a round")
    modes: int = setting(8, "Gaussians on a ring of radius 2, and components of the mixture")
    std: list[float] = setting([0.1], "standard deviation of each mode")
    rounds: int = setting(20, "rounds; round 1 is fitted to real samples")
    replicas: int = setting(200, "independent repetitions of each cell")
    steps: int = setting(5, "EM steps a fit, from the data's own mixture")
    policy: list[Policy] = setting([*POLICIES], ABOUT_POLICY)
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "A mixture that learns from itself"
    question: ClassVar[str] = (
        "EM is not a perfect learner, but it keeps mean and variance exactly, and separate modes keep their counts. "
        "So the theory applies to it: does it hold?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {**OF_MOMENTS, **OF_SHARES}

    def __post_init__(self) -> None:
        check(self.n, self.rounds, self.replicas, self.lam)
        if self.modes < 2 or min(self.std) <= 0 or self.steps < 1:
            raise ValueError("needs at least 2 modes, one EM step, and std above 0")

    def cells(self) -> list[Cell]:
        return resolved(super().cells())

    def run(self, cells: Sequence[Cell]) -> Chunk:
        rows: list[LabRow] = []
        clouds: list[Cloud] = []
        for place, cell in enumerate(cells):
            for t, model in enumerate(islice(self._path(cell), self.rounds), start=1):
                if t in reported_rounds(self.rounds):
                    rows += self._rows(place, cell, t, model)
                    clouds += self._clouds(place, cell, t, model)
        return Chunk(rows, clouds)

    def truth(self, std: float) -> Mixtures:
        """R times the data's own mixture."""
        angle = np.arange(self.modes) * (2 * math.pi / self.modes)
        means = np.tile(_RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1), (self.replicas, 1, 1))
        return Mixtures(np.full(means.shape[:2], 1 / self.modes), means, np.full(means.shape, std**2))

    def _path(self, cell: Cell) -> Iterator[Mixtures]:
        """Every fit begins at the data's own mixture: from the model before, a lost mode could not come back."""
        rng, n = source("mixture", cell, self.seed), int(cell["n"])
        truth = self.truth(cell["std"])
        return rounds(
            cell["policy"], cell["lam"], rng, lambda: truth.sample(rng, n)[0],
            lambda points, weights: _gaussian_mixtures.fit(points, weights, truth, self.steps),
            lambda model: model.sample(rng, n)[0],
        )

    def _rows(self, place: int, cell: Cell, t: int, model: Mixtures) -> Iterator[LabRow]:
        n, policy, lam = int(cell["n"]), str(cell["policy"]), float(cell["lam"])
        unit = _RADIUS**2 / 2 + cell["std"] ** 2  # the data's variance in each direction
        weights = model.weights[:, :, None]
        mean = (weights * model.means).sum(axis=1)
        total = (weights * (model.variances + np.square(model.means))).sum(axis=1) - np.square(mean)
        within = (weights * model.variances).sum(axis=(1, 2)) / (2 * cell["std"] ** 2)
        predicted, by = moments(policy, n, t, lam)
        yield measured(place, VARIANCE, t, total.mean(axis=1) / unit, predicted.variance, by)
        yield measured(place, DRIFT, t, np.square(mean).mean(axis=1) / unit, predicted.drift, by)
        yield measured(place, WITHIN, t, within)
        start, apart = np.full(self.modes, 1 / self.modes), cell["std"] <= _APART
        expected, by = diversity(theory.heterozygosity(start), n, t, policy, lam) if apart else (math.nan, "")
        yield measured(place, DIVERSITY, t, 1 - np.square(model.weights).sum(axis=1), expected, by)
        expected, by = gone(start, n, t, policy) if apart else (math.nan, "")
        rare = 0.0 if math.isnan(expected) else expected
        yield measured(place, LOST, t, (model.weights < _DEAD).sum(axis=1), expected, by, variance=rare)

    def _clouds(self, place: int, cell: Cell, t: int, model: Mixtures) -> Iterator[Cloud]:
        """The first replica, of the first n and std."""
        if (cell["n"], cell["std"]) != (self.n[0], self.std[0]):
            return
        points = Mixtures(*(part[:1] for part in model)).sample(source("picture", cell, t), _DRAWN)[0][0]
        title = f"One run in {self.replicas}, n = {cell['n']}"
        row = policy_title(cell["policy"], cell["lam"])
        if t == 1:
            real = Mixtures(*(part[:1] for part in self.truth(cell["std"])))
            yield Cloud(place, title, "", row, real.sample(source("real", cell), _DRAWN)[0][0])
        yield Cloud(place, title, row, f"round {t}", points)

    def charts(self) -> Sequence[Chart]:
        several = tuple(name for name in ("n", "std") if len(getattr(self, name)) > 1)
        series, panels = (several or ("lam",))[0], ("policy", *several[1:])
        about = {
            DIVERSITY: "1 - Σπ² of the weights, as for a vocabulary of that size.",
            LOST: "Components whose weight is 0.",
            VARIANCE: "Of the mixture as a whole, a direction, in units of the data's.",
            DRIFT: "In variances of the data.",
            WITHIN: "Of single modes, in units of the data's; no formula.",
        }
        return [Chart(name.capitalize(), text, name, series=series, panels=panels) for name, text in about.items()]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        last = [
            row for row in table
            if (row["quantity"], row["round"], row["std"]) == (LOST, self.rounds, self.std[0])
        ]
        listed = ", ".join(
            f"{row['simulation']:.2f} under {policy_title(row['policy'], row['lam'])}" for row in last[:6]
        )
        return [f"Modes lost of {self.modes} in {self.rounds} rounds at n = {self.n[0]}: {listed}."]


_DRAWN = 400  # points of a panel

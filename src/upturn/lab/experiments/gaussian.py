"""Experiment: a Gaussian fitted repeatedly to its own samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, cast

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, reported_rounds, setting, source
from upturn.lab.experiments import _gaussian_rounds as gaussians
from upturn.lab.experiments._gaussian_rounds import Setup, State
from upturn.lab.experiments._policies import (
    ABOUT_LAMBDA,
    ABOUT_POLICY,
    OF_MOMENTS,
    Policy,
    check,
    moments,
    policy_title,
    resolved,
)
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

Divide = Literal["n", "n-1", ""]

_DIVISION = {"replace": "n-1"}  # as in the published formulas; every other policy divides by n
_NUMBERS = 1 << 23  # numbers in a block of replicas: 64 MB
DRIFT = "drift of the mean, squared"
_ONE = "One Gaussian; each round is fitted to n samples of the previous model only."
_ALL = "One Gaussian fitted to all samples so far; the first n samples are real."


@dataclass
class Gaussian(AtOnce):
    """A Gaussian fitted repeatedly to its own samples: how sampling noise alone shrinks it in each round."""

    n: list[int] = setting([100], "samples a round")
    rounds: int = setting(100, "rounds; round 1 is the first fit")
    replicas: int = setting(10_000, "independent repetitions of each cell")
    policy: list[Policy] = setting(["replace"], ABOUT_POLICY)
    dim: list[int] = setting([1], "dimensions")
    division: list[Divide] = setting([""], "divisor of the covariance: n or n-1; '' is n-1 for replace, else n")
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "A Gaussian fitted to its own samples"
    question: ClassVar[str] = (
        "Each round fits a Gaussian to samples of the previous Gaussian. How fast does the variance shrink, and what "
        "prevents it?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "mean_sigma": Formula("E[σ_t] = α(n)^t σ_0", _ONE, "Bertrand et al. 2024; theory.mean_sigma"),
        "mean_variance": Formula("E[σ_t²] = ((n-1)/divisor)^t σ_0²", _ONE, "theory.mean_variance"),
        "mean_log_variance": Formula(
            "E[log σ_t²] = t (ψ((n-1)/2) + log(2/divisor))", _ONE, "theory.mean_log_variance"
        ),
        "mean_log_det": Formula(
            "E[log det Σ_t] = t Σ_{i≤d} (ψ((n-i)/2) + log(2/divisor))", _ONE, "Bartlett; theory.mean_log_det"
        ),
        "mean_drift": Formula("E‖μ_t-μ_0‖² = t/n tr Σ_0, or 1-(1-1/n)^t", _ONE, "theory.mean_drift"),
        "accumulated_variance": Formula("E[σ_t²] = Π_{k≤t} (1 - 1/(nk²))", _ALL, "theory.accumulated_variance"),
        "accumulated_drift": Formula("E‖μ_t-μ_0‖² = Σ_k E[σ_{k-1}²]/(nk²)", _ALL, "theory.accumulated_drift"),
        **OF_MOMENTS,
    }

    def __post_init__(self) -> None:
        check(self.n, self.rounds, self.replicas, self.lam)
        if min(self.dim) < 1:
            raise ValueError("needs at least 1 dimension")
        if min(self.n) <= max(self.dim):
            raise ValueError(
                f"{min(self.n)} samples do not span {max(self.dim)} dimensions: the fit would be singular; "
                f"give --n {max(self.dim) + 1} or more"
            )

    def cells(self) -> list[Cell]:
        """λ is inf where a policy has no real data after the first round, and ``division`` is always filled in."""
        return resolved([
            {**cell, "division": cell["division"] or _DIVISION.get(cell["policy"], "n")} for cell in super().cells()
        ])

    def run(self, cells: Sequence[Cell]) -> Chunk:
        return Chunk([row for place, cell in enumerate(cells) for row in self._rows(place, cell)])

    def _rows(self, place: int, cell: Cell) -> Iterator[LabRow]:
        n, dim, policy = int(cell["n"]), int(cell["dim"]), str(cell["policy"])
        at = reported_rounds(self.rounds)
        width = n * self.rounds * dim if policy == "accumulate_subsample" else dim * dim
        block = max(_NUMBERS // width, 2)
        found: dict[tuple[str, int], list[Array]] = {}
        for start in range(0, self.replicas, block):
            setup = Setup(n, min(block, self.replicas - start), dim, cell["division"], float(cell["lam"]))
            states = _stepper(policy)(source("gaussian", cell, self.seed, start), setup)
            for t, state in enumerate(islice(states, self.rounds), start=1):
                if t in at:
                    for name, values in _values(state).items():
                        found.setdefault((name, t), []).append(values)
        for (name, t), parts in found.items():
            predicted = expected(name, n, t, dim, policy, cell["division"], float(cell["lam"]))
            if predicted is not None or name in ("log variance",):
                value, formula, trusted = predicted or (math.nan, "", True)
                yield measured(place, name, t, np.concatenate(parts), value, formula, meaningful=trusted)

    def charts(self) -> Sequence[Chart]:
        many = tuple(name for name in ("n", "division") if len(getattr(self, name)) > 1)
        series = "dim" if len(self.dim) > 1 else "lam"
        about = {
            "variance": "The mean of σ_t² over replicas. Under replace with division by n - 1 it stays constant, "
            "although almost every path goes to zero: a few replicas with large values determine the mean.",
            "log variance": "The typical path: under replace, E[log σ_t²] falls by the same amount in every round.",
            DRIFT: "The squared distance of the mean from its start, in units of the data's variance.",
            "sigma": "E[σ_t], for which the rate α(n) is published.",
            "log det": "log det Σ_t: the log volume of the fitted Gaussian over all dimensions.",
        }
        return [
            Chart(name.capitalize(), text, name, series=series, panels=("policy", *many), log="x")
            for name, text in about.items() if name != "log det" or max(self.dim) > 1
        ]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        last = [row for row in table if row["quantity"] == "log variance" and row["round"] == self.rounds]
        typical = {
            (row["policy"], row["lam"]): math.exp(row["simulation"] / 2) for row in last if row["dim"] == min(self.dim)
        }
        least, most = min(typical, key=lambda key: typical[key]), max(typical, key=lambda key: typical[key])
        text = f"After {self.rounds} rounds the typical standard deviation is {typical[least]:.1%} of the data's under "
        text += policy_title(*least)
        return [f"{text}, {typical[most]:.1%} under {policy_title(*most)}." if most != least else f"{text}."]


def _stepper(policy: str) -> Callable[[np.random.Generator, Setup], Iterator[State]]:
    return {
        "replace": gaussians.replace, "accumulate": gaussians.accumulate, "accumulate_subsample": gaussians.subsample,
        "fresh": lambda rng, of: gaussians.blend(rng, of, True),
        "fixed_real": lambda rng, of: gaussians.blend(rng, of, False),
    }[policy]


def _values(state: State) -> dict[str, Array]:
    """(R,) values of each quantity; all but log det are means over the coordinates."""
    sigma = np.exp(state.log_sigma)
    found = {
        "sigma": sigma.mean(axis=1), "log variance": 2 * state.log_sigma.mean(axis=1),
        "variance": (sigma**2).mean(axis=1), DRIFT: (state.mean**2).mean(axis=1),
    }
    return {**found, "log det": state.log_det} if state.mean.shape[1] > 1 else found


def expected(
    name: str, n: int, t: int, dim: int, policy: str, division: str, lam: float
) -> tuple[float, str, bool] | None:
    """The theory's value at round t, the name of its formula, and whether a mean over replicas can test it."""
    by = cast(theory.Division, division)
    if policy == "replace":
        spread = theory.log_variance_spread(n, t)
        scale = math.sqrt((n - 1) / n) if division == "n" else 1.0
        return {
            "sigma": (theory.mean_sigma(n, t) * scale**t, "mean_sigma", spread / 4 <= 1),
            "variance": (theory.mean_variance(n, t, 1.0, by), "mean_variance", spread <= 1),
            "log variance": (theory.mean_log_variance(n, t, 1.0, by), "mean_log_variance", True),
            "log det": (theory.mean_log_det(n, dim, t, 0.0, by), "mean_log_det", True),
            DRIFT: (theory.mean_drift(n, t, 1.0, by), "mean_drift", spread <= 1),
        }[name]
    if name not in ("variance", DRIFT):
        return None
    if policy == "accumulate":
        if name == "variance":
            return theory.accumulated_variance(n, t, 1.0, by), "accumulated_variance", True
        return theory.accumulated_drift(n, t, 1.0, by), "accumulated_drift", True
    predicted, formula = moments(policy, n, t, lam, division=by)
    return predicted.variance if name == "variance" else predicted.drift, formula, True

"""Experiment: linear regression on labels from the previous model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from upturn import theory
from upturn.lab.experiment import AtOnce, Cell, Chart, Chunk, reported_rounds, setting, source
from upturn.lab.experiments._gaussian_rounds import bartlett, square
from upturn.lab.experiments._policies import (
    ABOUT_LAMBDA,
    ABOUT_POLICY,
    BLENDS,
    POLICIES,
    Policy,
    check,
    policy_title,
    real_weight,
    resolved,
)
from upturn.lab.rows import Formula, LabRow, measured
from upturn.types import Array

RISK = "excess risk"
_SETTING = "Features from N(0, I), T > d + 1 samples, least squares."


@dataclass
class Regression(AtOnce):
    """Linear regression, each model fitted to labels from the previous one: how the excess risk grows."""

    n: list[int] = setting([50], "samples a round, T")
    features: list[int] = setting([5], "features, d")
    noise: float = setting(1.0, "variance of the labels' noise, σ²")
    inputs: list[Literal["same", "fresh"]] = setting(["same", "fresh"], "the same inputs in every round, or fresh ones")
    rounds: int = setting(20, "rounds; round 1 is fitted on real labels")
    replicas: int = setting(4000, "independent repetitions of each cell")
    policy: list[Policy] = setting([*POLICIES], ABOUT_POLICY)
    lam: list[float] = setting([1.0], ABOUT_LAMBDA)
    seed: int = setting(0, "the same seed gives the same numbers")

    title: ClassVar[str] = "Regression on the model's own labels"
    question: ClassVar[str] = (
        "In each round the previous model labels inputs, with noise, and a new model is fitted. Does the error grow "
        "without bound?"
    )
    formulas: ClassVar[Mapping[str, Formula]] = {
        "risk_replace": Formula(
            "E‖w_t-w‖² = t σ²d/(T-d-1)", _SETTING, "Gerstgrasser et al. 2024; theory.regression_risk_replace"
        ),
        "risk_accumulate": Formula(
            "(Σ_{k≤t} 1/k²) σ²d/(T-d-1)", f"{_SETTING} Every round labels the same inputs.",
            "Gerstgrasser et al. 2024; theory.regression_risk_accumulate",
        ),
        "risk_accumulate_fresh": Formula(
            "Σ_{k≤t} σ²d/(k(kT-d-1))", f"{_SETTING} Fresh inputs in every round.",
            "theory.regression_risk_accumulate_fresh",
        ),
        "risk_mixed": Formula(
            "V' = G + (1-w)²V, or w²G + (1-w)²(V+G) where fresh; G = σ²d/(T-d-1)",
            f"{_SETTING} Real and synthetic labels of the same inputs, weights 1 : λ.", "theory.regression_risk_mixed",
        ),
    }

    def __post_init__(self) -> None:
        check(self.n, self.rounds, self.replicas, self.lam)
        if min(self.features) < 1 or min(self.n) <= max(self.features) + 3 or self.noise <= 0:
            raise ValueError("needs n above the features + 3 (else the risk has no variance), and noise above 0")

    def cells(self) -> list[Cell]:
        return resolved(super().cells())

    def run(self, cells: Sequence[Cell]) -> Chunk:
        return Chunk([row for place, cell in enumerate(cells) for row in self._rows(place, cell)])

    def _rows(self, place: int, cell: Cell) -> Iterator[LabRow]:
        rng, at = source("regression", cell, self.seed), reported_rounds(self.rounds)
        setup = _Setup(cell["n"], cell["features"], math.sqrt(self.noise), self.replicas, cell["inputs"] == "fresh")
        if cell["policy"] == "accumulate_subsample":
            path = subsampled(rng, setup)
        else:
            path = fitted(rng, setup, cell["policy"], cell["lam"])
        for t, error in enumerate(islice(path, self.rounds), start=1):
            if t in at:
                expected, by = self._expected(cell, t)
                yield measured(place, RISK, t, np.square(error).sum(axis=1), expected, by)

    def _expected(self, cell: Cell, t: int) -> tuple[float, str]:
        n, d, policy, fresh = cell["n"], cell["features"], cell["policy"], cell["inputs"] == "fresh"
        if policy == "replace":
            return theory.regression_risk_replace(n, d, self.noise, t), "risk_replace"
        if policy == "accumulate":
            if fresh:
                return theory.regression_risk_accumulate_fresh(n, d, self.noise, t), "risk_accumulate_fresh"
            return theory.regression_risk_accumulate(n, d, self.noise, t), "risk_accumulate"
        if policy in BLENDS and not fresh:
            return theory.regression_risk_mixed(n, d, self.noise, cell["lam"], t, fresh=policy == "fresh"), "risk_mixed"
        return math.nan, ""

    def charts(self) -> Sequence[Chart]:
        about = (
            "E‖w_t - w‖². Replace adds one fit's error in every round, accumulate less and less; real labels in every "
            "round bound it."
        )
        return [Chart("Excess risk", about, RISK, series="inputs", panels=("policy",))]

    def sentences(self, table: Sequence[Mapping[str, Any]]) -> Sequence[str]:
        risks: dict[str, float] = {}
        for row in table:
            if row["round"] == self.rounds and row["inputs"] == self.inputs[0]:
                risks.setdefault(policy_title(row["policy"], row["lam"]), row["simulation"])
        listed = ", ".join(f"{risk:.3g} under {policy}" for policy, risk in risks.items())
        return [f"After {self.rounds} rounds the excess risk is {listed}."] if risks else []


class _Setup(NamedTuple):
    n: int
    d: int
    sigma: float
    replicas: int
    fresh: bool  # inputs


class _Batch(NamedTuple):
    """The sufficient statistics of n labelled samples: XᵀX (R, d, d) and Xᵀ(y - Xw) (R, d, 1)."""

    gram: Array
    moment: Array


def fitted(rng: np.random.Generator, of: _Setup, policy: str, lam: float) -> Iterator[Array]:
    """(R, d) errors w_t - w of each round, drawn as XᵀX ~ Wishart and Xᵀε ~ N(0, σ² XᵀX)."""
    root = _inputs(rng, of)
    w = real_weight(lam)
    real = _labelled(rng, of, root, np.zeros((of.replicas, of.d, 1)))
    pool = real
    for _ in count():
        error = np.linalg.solve(pool.gram, pool.moment)
        yield error[:, :, 0]
        root = _inputs(rng, of) if of.fresh else root
        generated = _labelled(rng, of, root, error)
        if policy in BLENDS:
            if policy == "fresh":
                own = _inputs(rng, of) if of.fresh else root
                real = _labelled(rng, of, own, np.zeros_like(error))
            pool = _Batch(*(w * a + (1 - w) * b for a, b in zip(real, generated, strict=True)))
        elif policy == "replace":
            pool = generated
        else:
            pool = _Batch(pool.gram + generated.gram, pool.moment + generated.moment)


def _inputs(rng: np.random.Generator, of: _Setup) -> Array:
    """(R, d, d) L with L Lᵀ = XᵀX of n rows from N(0, I)."""
    return bartlett(rng, of.n + 1, of.replicas, of.d)


def _labelled(rng: np.random.Generator, of: _Setup, root: Array, error: Array) -> _Batch:
    gram = square(root)
    return _Batch(gram, gram @ error + of.sigma * root @ rng.standard_normal((of.replicas, of.d, 1)))


def subsampled(rng: np.random.Generator, of: _Setup) -> Iterator[Array]:
    """(R, d) errors where each round is fitted on n draws, with replacement, from all labelled samples so far."""
    x = rng.standard_normal((of.replicas, of.n, of.d))
    rows = np.arange(of.replicas)[:, None]
    error = np.zeros((of.replicas, of.d, 1))
    inputs, labels = x[:, :0], x[:, :0, :1]
    for _ in count():
        noise = of.sigma * rng.standard_normal((of.replicas, of.n, 1))
        inputs, labels = np.concatenate([inputs, x], axis=1), np.concatenate([labels, x @ error + noise], axis=1)
        picked = rng.integers(inputs.shape[1], size=(of.replicas, of.n))
        chosen = inputs[rows, picked]
        across = chosen.swapaxes(1, 2)
        # few distinct draws may not span all features: then the minimum-norm solution
        error = np.linalg.pinv(across @ chosen, hermitian=True) @ (across @ labels[rows, picked])
        yield error[:, :, 0]
        x = rng.standard_normal(x.shape) if of.fresh else x

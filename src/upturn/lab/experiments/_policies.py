"""Mixing policies of the experiments: theory, titles, and a loop for experiments that draw every sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np

from upturn import theory
from upturn.lab.experiment import Cell
from upturn.lab.rows import Formula
from upturn.theory import Division, Moments
from upturn.types import Array

Policy = Literal["replace", "accumulate", "accumulate_subsample", "fresh", "fixed_real"]
Model = TypeVar("Model")

POLICIES: tuple[Policy, ...] = get_args(Policy)
BLENDS = ("fresh", "fixed_real")  # with real data in every round, so that λ applies
ABOUT_POLICY = "replace, accumulate, accumulate_subsample (n draws of the pool), fresh or fixed_real (with --lam)"
ABOUT_LAMBDA = "synthetic : real, for the policies fresh and fixed_real"


def resolved(cells: Sequence[Cell]) -> list[Cell]:
    """λ is inf where a policy has no real data after the first round; each cell once."""
    found: list[Cell] = []
    for cell in cells:
        full = {**cell, "lam": cell["lam"] if cell["policy"] in BLENDS else math.inf}
        if full not in found:
            found.append(full)
    return found


def check(n: Sequence[int], rounds: int, replicas: int, lam: Sequence[float]) -> None:
    """Raises ValueError for settings that are out of range."""
    if min(n) < 2 or rounds < 1 or replicas < 2:
        raise ValueError("needs n of 2 or more, at least 1 round and 2 replicas")
    if min(lam) < 0 or math.isnan(sum(lam)):
        raise ValueError(f"λ must not be below 0, got {min(lam):g}")


def policy_title(policy: str, lam: float) -> str:
    """A policy's name for titles and sentences."""
    return policy.replace("_", " ") + ("" if math.isinf(lam) else f" at λ = {lam:g}")


def moments(
    policy: str, n: int, t: int, lam: float, *, kernel: float = 0.0, division: Division = "n"
) -> tuple[Moments, str]:
    """Variance and drift in round t for a fit that keeps the first two moments, and the name of the formula."""
    if policy in (*BLENDS, "replace"):
        fresh = policy == "fresh"
        return theory.mixed_moments(n, n, lam, t, fresh=fresh, kernel=kernel, division=division), "mixed_moments"
    subsample = n if policy == "accumulate_subsample" else None
    predicted = theory.accumulated_moments(n, t, subsample=subsample, kernel=kernel, division=division)
    return predicted, "accumulated_moments"


def diversity(start: float, n: int, t: int, policy: str, lam: float) -> tuple[float, str]:
    """E[1 - Σp²] in round t of an exact learner, from ``start`` = 1 - Σp_0², and the name of the formula."""
    if policy == "replace":
        return theory.mean_heterozygosity(n, t, start), "mean_heterozygosity"
    if policy in BLENDS:
        return theory.mixed_heterozygosity(n, n, lam, t, start, fresh=policy == "fresh"), "mixed_heterozygosity"
    subsample = n if policy == "accumulate_subsample" else None
    pool = theory.accumulated_heterozygosity(n, t - 1, n, (1 - 1 / n) * start, subsample)
    return pool * (1 if subsample is None else 1 - 1 / n), "accumulated_heterozygosity"


def gone(start: Array, n: int, t: int, policy: str) -> tuple[float, str]:
    """Expected number of modes that an exact learner of the shares ``start`` has lost in round t, and the formula."""
    if policy == "replace":
        return theory.expected_lost_modes(start, n, t).value, "expected_lost_modes"
    if policy in ("accumulate", "fixed_real"):
        return float(np.sum((1 - start) ** n)), "missed_modes"
    return math.nan, ""


_PERFECT = "A learner whose only error is its finite sample."
OF_SHARES: Mapping[str, Formula] = {
    "mean_heterozygosity": Formula("E[1-Σp²] = (1-1/n)^t (1-Σp_0²)", _PERFECT, "theory.mean_heterozygosity"),
    "accumulated_heterozygosity": Formula(
        "E[1-Σq²] = (1-1/n) Π_k (1 - c/(k+1)²), c = 1/n, or 1-(1-1/n)(1-1/m) by m draws",
        "Learned from all draws so far, or from m of them; the first n are real.", "theory.accumulated_heterozygosity",
    ),
    "mixed_heterozygosity": Formula(
        "A' = w²R + 2w(1-w)B + (1-w)²(A + (1-A)/n)", "Real and synthetic draws with weights 1 : λ in every round.",
        "theory.mixed_heterozygosity",
    ),
    "expected_lost_modes": Formula(
        "Wright–Fisher: Σ_i P(count_i = 0 after t rounds)", _PERFECT, "theory.expected_lost_modes"
    ),
    "missed_modes": Formula(
        "Σ_i (1-p_i)^n in every round", "The real draws are kept: only modes that they missed are lost.", "one line"
    ),
}
OF_MOMENTS: Mapping[str, Formula] = {
    "mixed_moments": Formula(
        "s' = w + (1-w)(v + V) - V', w = 1/(1+λ)", "The fit keeps mean and variance; any data; w = 0 is replace.",
        "theory.mixed_moments",
    ),
    "accumulated_moments": Formula(
        "S' = S (1 - (1/m + c/n)/(k+1)²), 1/m = 0 and c = 1 without a subsample",
        "The fit keeps mean and variance of all samples so far, or of m draws of them.", "theory.accumulated_moments",
    ),
}


def real_weight(lam: float) -> float:
    """w = 1/(1+λ), 0 for λ = inf."""
    return 0.0 if math.isinf(lam) else 1 / (1 + lam)


def rounds(
    policy: str, lam: float, rng: np.random.Generator, real: Callable[[], Array],
    fit: Callable[[Array, Array], Model], sample: Callable[[Model], Array],
) -> Iterator[Model]:
    """The models of one loop: round 1 is fitted on real samples, each later one as the policy requires.

    ``real()`` and ``sample(model)`` return (R, n, d), ``fit((R, N, d), (N,) weights that sum to 1)`` a model. Real
    samples come first. A subsample is drawn with replacement.
    """
    data = real()
    n = data.shape[1]
    pool, rows = data, np.arange(len(data))[:, None]
    w = real_weight(lam)
    model = _draws(policy, pool, rows, rng, fit, n)
    while True:
        yield model
        generated = sample(model)
        if policy in BLENDS:
            data = real() if policy == "fresh" else data
            weights = np.repeat([w / n, (1 - w) / n], n)
            model = fit(np.concatenate([data, generated], axis=1), weights)
            continue
        pool = generated if policy == "replace" else np.concatenate([pool, generated], axis=1)
        model = _draws(policy, pool, rows, rng, fit, n)


def _draws(
    policy: str, pool: Array, rows: Array, rng: np.random.Generator, fit: Callable[[Array, Array], Model], n: int
) -> Model:
    chosen = pool[rows, rng.integers(pool.shape[1], size=(len(pool), n))] if policy == "accumulate_subsample" else pool
    size = chosen.shape[1]
    return fit(chosen, np.full(size, 1 / size))

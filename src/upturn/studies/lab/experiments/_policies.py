"""What each round trains on: the policies that the families share, and a loop for those that draw every sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np

from upturn.studies.lab.experiment import Cell
from upturn.types import Array

Policy = Literal["replace", "accumulate", "accumulate_subsample", "fresh", "fixed_real"]
Model = TypeVar("Model")

POLICIES: tuple[Policy, ...] = get_args(Policy)
BLENDS = ("fresh", "fixed_real")  # with real data in every round, so that λ means something
ABOUT_POLICY = "replace, accumulate, accumulate_subsample (n draws of the pool), fresh or fixed_real (with --lam)"
ABOUT_LAMBDA = "synthetic : real, of the policies fresh and fixed_real"


def resolved(cells: Sequence[Cell]) -> list[Cell]:
    """λ is inf where a policy has no real data after the first round; each cell once."""
    found: list[Cell] = []
    for cell in cells:
        full = {**cell, "lam": cell["lam"] if cell["policy"] in BLENDS else math.inf}
        if full not in found:
            found.append(full)
    return found


def check(n: Sequence[int], rounds: int, replicas: int, lam: Sequence[float]) -> None:
    """Raises ValueError for settings that make no loop."""
    if min(n) < 2 or rounds < 1 or replicas < 2:
        raise ValueError("needs n of 2 or more, at least 1 round and 2 replicas")
    if min(lam) < 0 or math.isnan(sum(lam)):
        raise ValueError(f"λ must not be below 0, got {min(lam):g}")


def told(policy: str, lam: float) -> str:
    """A policy in words."""
    return policy.replace("_", " ") + ("" if math.isinf(lam) else f" at λ = {lam:g}")


def real_weight(lam: float) -> float:
    """w = 1/(1+λ), 0 for λ = inf."""
    return 0.0 if math.isinf(lam) else 1 / (1 + lam)


def rounds(
    policy: str, lam: float, rng: np.random.Generator, real: Callable[[], Array],
    fit: Callable[[Array, Array], Model], sample: Callable[[Model], Array],
) -> Iterator[Model]:
    """The models of one loop: round 1 is fitted on real samples, each later one as the policy says.

    ``real()`` and ``sample(model)`` give (R, n, d), ``fit((R, N, d), (N,) weights that sum to 1)`` a model. Real
    samples come first. A subsample is drawn with replacement.
    """
    data = real()
    n = data.shape[1]
    pool, rows = data, np.arange(len(data))[:, None]
    w = real_weight(lam)
    model = _draws(policy, pool, rows, rng, fit, n)
    while True:
        yield model
        made = sample(model)
        if policy in BLENDS:
            data = real() if policy == "fresh" else data
            weights = np.repeat([w / n, (1 - w) / n], n)
            model = fit(np.concatenate([data, made], axis=1), weights)
            continue
        pool = made if policy == "replace" else np.concatenate([pool, made], axis=1)
        model = _draws(policy, pool, rows, rng, fit, n)


def _draws(
    policy: str, pool: Array, rows: Array, rng: np.random.Generator, fit: Callable[[Array, Array], Model], n: int
) -> Model:
    chosen = pool[rows, rng.integers(pool.shape[1], size=(len(pool), n))] if policy == "accumulate_subsample" else pool
    size = chosen.shape[1]
    return fit(chosen, np.full(size, 1 / size))

"""The Gaussian lab: one Gaussian retrained on its own samples, many replicas at once, held against the theory.

Samples are not drawn one by one: a fit needs only their mean, N(μ, Σ/n), and scatter, Wishart(Σ, n - 1), which
are independent (Bartlett's decomposition gives the second as A Aᵀ with A lower-triangular).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from upturn import seeds, theory
from upturn.errors import UserError
from upturn.types import Array

Policy = Literal["replace", "accumulate"]

BOUND = 4.0  # standard errors within which simulation and theory agree
COLUMNS = ("quantity", "round", "theory", "simulation", "standard error", "z", "meaningful")
_ROUNDS_SHOWN = (1, 2, 5, 10, 20, 50)  # and their multiples by powers of ten, and the last
_DEFAULT_DIVISION: dict[str, theory.Division] = {"replace": "n-1", "accumulate": "n"}  # those of THEORY's formulas


def run(
    n: int, rounds: int, replicas: int, policy: str = "replace", dim: int = 1,
    division: theory.Division | None = None, seed: int = 0,
) -> dict[str, Any]:
    """Retrain ``replicas`` Gaussians for ``rounds`` rounds of ``n`` samples from N(0, I) in ``dim`` dimensions.

    policy    replace: each fit sees the newest n samples; accumulate: all so far (the first n are real)
    division  of the scatter: "n-1" (the default of replace) or "n" (the default of accumulate)

    Returns a JSON-ready dict: the settings, ``seconds``, ``checks`` (a row a quantity and round: theory, simulation,
    standard_error, z or None, meaningful), ``largest_z`` over the meaningful ones, ``bound`` and whether all ``agree``.
    With 1,000 replicas no run in 1,750 disagreed by chance; with 100 it is one in a hundred (squares are skewed).
    Raises UserError for settings that make no experiment.
    """
    chosen = _checked(n, rounds, replicas, policy, dim, division)
    start = time.perf_counter()
    rng = seeds.generator(seeds.key("lab gaussian", seed, policy, n, dim))
    stepper = _replace if policy == "replace" else _accumulate
    shown = set(_rounds_shown(rounds))
    checks: list[dict[str, Any]] = []
    for t, state in enumerate(stepper(rng, n, replicas, dim, chosen), start=1):
        if t in shown:
            values = _measured(state, policy)
            checks += [_check(name, t, column, _expected(name, n, t, dim, policy, chosen)) for name, column in values]
        if t == rounds:
            break
    scores = [abs(row["z"]) for row in checks if row["meaningful"]]
    return {
        "study": "gaussian", "n": n, "rounds": rounds, "replicas": replicas, "policy": policy, "dim": dim,
        "division": chosen, "seed": seed, "seconds": round(time.perf_counter() - start, 4), "checks": checks,
        "largest_z": max(scores, default=0.0), "bound": BOUND, "agree": all(z <= BOUND for z in scores),
    }


def table(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of text, :data:`COLUMNS` first, then quantity by quantity and round by round."""
    order = {name: i for i, name in enumerate(dict.fromkeys(row["quantity"] for row in result["checks"]))}
    rows = sorted(result["checks"], key=lambda row: (order[row["quantity"]], row["round"]))
    return [COLUMNS] + [
        (
            row["quantity"], str(row["round"]), f"{row['theory']:.6g}", f"{row['simulation']:.6g}",
            f"{row['standard_error']:.2g}", f"{row['z']:+.2f}" if row["meaningful"] else "",
            "yes" if row["meaningful"] else "no: rare replicas carry the mean",
        )
        for row in rows
    ]


def _checked(
    n: int, rounds: int, replicas: int, policy: str, dim: int, division: theory.Division | None
) -> theory.Division:
    where = "lab gaussian"
    if policy not in get_args(Policy):
        known = " or ".join(get_args(Policy))
        raise UserError(f"there is no policy '{policy}'", where=where, fix=f"Use {known}.")
    if division is not None and division not in get_args(theory.Division):
        raise UserError(f"there is no division '{division}'", where=where, fix="Use n or n-1.")
    if dim < 1 or rounds < 1 or replicas < 2:
        raise UserError("needs at least 1 round, 1 dimension and 2 replicas", where=where, fix="Raise the number.")
    if n <= dim:
        raise UserError(
            f"{n} samples do not span {dim} dimensions: the fit would be singular", where=where,
            fix=f"Give --n {dim + 1} or more.",
        )
    return division or _DEFAULT_DIVISION[policy]


def _rounds_shown(rounds: int) -> list[int]:
    decades = range(len(str(rounds)))
    shown = {mark * 10 ** (2 * decade) for mark in _ROUNDS_SHOWN for decade in decades}
    return sorted({t for t in shown if t < rounds} | {rounds})


class State(NamedTuple):
    """The fitted Gaussians of R replicas; logs beside the roots, as spreads underflow after many rounds."""

    mean: Array  # (R, d)
    root: Array  # (R, d, d) lower-triangular, root rootᵀ = Σ
    log_sigma: Array  # (R, d) of each coordinate
    log_det: Array  # (R,) of Σ


def bartlett(rng: np.random.Generator, n: int, replicas: int, dim: int) -> Array:
    """(R, d, d) lower-triangular A with A Aᵀ ~ Wishart(I, n - 1): the scatter of n standard normal samples."""
    root = np.zeros((replicas, dim, dim))
    degrees = n - np.arange(1, dim + 1)
    root[:, np.arange(dim), np.arange(dim)] = np.sqrt(rng.chisquare(degrees, (replicas, dim)))
    below = np.tril_indices(dim, -1)
    root[:, below[0], below[1]] = rng.standard_normal((replicas, len(below[0])))
    return root


def _replace(rng: np.random.Generator, n: int, replicas: int, dim: int, division: theory.Division) -> Iterator[State]:
    """Triangular roots multiply, so no factorisation is needed; their rows are kept at length 1, lengths as logs."""
    mean, root, log_sigma, log_det = _truth(replicas, dim)
    unit, divisor = root, n if division == "n" else n - 1
    while True:
        noise = rng.standard_normal((replicas, dim, 1))
        mean = mean + (root @ noise)[:, :, 0] / math.sqrt(n)
        factor = bartlett(rng, n, replicas, dim) / math.sqrt(divisor)
        unit = unit @ factor
        length = np.sqrt(np.einsum("rij,rij->ri", unit, unit))
        unit = unit / length[:, :, None]
        log_sigma = log_sigma + np.log(length)
        log_det = log_det + 2 * np.log(np.einsum("rii->ri", factor)).sum(axis=1)
        root = np.exp(log_sigma)[:, :, None] * unit
        yield State(mean, root, log_sigma, log_det)


def _accumulate(
    rng: np.random.Generator, n: int, replicas: int, dim: int, division: theory.Division
) -> Iterator[State]:
    """Pooled mean and scatter of all kn samples, updated from those of the newest n."""
    mean, root, _, _ = _truth(replicas, dim)
    scatter = np.zeros((replicas, dim, dim))
    k = 0
    while True:
        shift = (root @ rng.standard_normal((replicas, dim, 1))) / math.sqrt(n)  # the new mean minus the pool's
        new = root @ bartlett(rng, n, replicas, dim)
        scatter = scatter + new @ new.swapaxes(1, 2) + (n * k / (k + 1)) * (shift @ shift.swapaxes(1, 2))
        k += 1
        mean = mean + shift[:, :, 0] / k
        covariance = scatter / (n * k if division == "n" else n * k - 1)
        root = np.linalg.cholesky(covariance)
        log_det = 2 * np.log(np.einsum("rii->ri", root)).sum(axis=1)
        yield State(mean, root, np.log(np.einsum("rii->ri", covariance)) / 2, log_det)


def _truth(replicas: int, dim: int) -> State:
    zeros = np.zeros((replicas, dim))
    return State(zeros, np.tile(np.eye(dim), (replicas, 1, 1)), zeros, np.zeros(replicas))


def _measured(state: State, policy: str) -> list[tuple[str, Array]]:
    """(R,) values of each quantity that has a formula; all but log det are means over the coordinates."""
    sigma = np.exp(state.log_sigma)
    squares = [("variance", (sigma**2).mean(axis=1)), ("drift of the mean, squared", (state.mean**2).mean(axis=1))]
    if policy == "accumulate":
        return squares
    logs = [("log variance", 2 * state.log_sigma.mean(axis=1))]
    if state.mean.shape[1] > 1:
        logs.append(("log det", state.log_det))
    return [("sigma", sigma.mean(axis=1)), *logs, *squares]


def _expected(name: str, n: int, t: int, dim: int, policy: str, division: theory.Division) -> tuple[float, bool]:
    """What the theory says at round t, and whether a mean over replicas is a meaningful test of it."""
    if policy == "accumulate":
        values = {
            "variance": theory.accumulated_variance(n, t, 1.0, division),
            "drift of the mean, squared": theory.accumulated_drift(n, t, 1.0, division),
        }
        return values[name], True
    spread = theory.log_variance_spread(n, t)
    scale = math.sqrt((n - 1) / n) if division == "n" else 1.0
    return {
        "sigma": (theory.mean_sigma(n, t) * scale**t, spread / 4 <= 1),
        "variance": (theory.mean_variance(n, t, 1.0, division), spread <= 1),
        "log variance": (theory.mean_log_variance(n, t, 1.0, division), True),
        "log det": (theory.mean_log_det(n, dim, t, 0.0, division), True),
        "drift of the mean, squared": (theory.mean_drift(n, t, 1.0, division), spread <= 1),
    }[name]


def _check(name: str, t: int, values: Array, expected: tuple[float, bool]) -> dict[str, Any]:
    truth, meaningful = expected
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    simulated = float(values.mean())
    trusted = meaningful and error > 0 and math.isfinite(error)
    return {
        "quantity": name, "round": t, "theory": truth, "simulation": simulated, "standard_error": error,
        "z": (simulated - truth) / error if trusted else None, "meaningful": trusted,
    }

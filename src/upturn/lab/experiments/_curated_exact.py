"""Curation on finite supports, by quadrature and enumeration: the bounds, the limit of many candidates, RLHF."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from upturn import theory
from upturn.lab.rows import LabRow, exact
from upturn.types import Array

BROKEN, MARGIN, ENUMERATED = "broken bounds", "least margin", "quadrature against enumeration"
TILT, OPTIMUM, SLOPE = "distance to the tilt", "distance to the RLHF optimum", "slope of log p_t/p_0 in the reward"
_ROUNDING = 1e-9  # relative: of the quadrature and of sums
_BLOCK = 250  # cases of one size together
_TUPLES = 20_000  # that an enumeration may have
_MOST_ROUNDS = 4  # beyond, the tilt leaves shares so small that the optimiser does not find its way to them
_SIZES = (2, 3, 4, 6, 9, 12)  # supports


class Cases(NamedTuple):
    """C random cases: shares (C, m), rewards (C, m) in nats, λ (C,)."""

    p: Array
    r: Array
    lam: Array


def cases(rng: np.random.Generator, count: int, size: int) -> Cases:
    """Shares from even to nearly degenerate, rewards of spreads 0.1 to 6 nats, λ from 0.02 to 10: all log-uniform."""
    p = rng.gamma(np.exp(rng.uniform(-2.5, 2, (count, 1))), size=(count, size)) + 1e-12
    r = rng.standard_normal((count, size)) * np.exp(rng.uniform(math.log(0.1), math.log(6), (count, 1)))
    return Cases(p / p.sum(axis=1, keepdims=True), r, np.exp(rng.uniform(math.log(0.02), math.log(10), count)))


def bounds(rng: np.random.Generator, place: int, candidates: int, count: int, rounds: int) -> Iterator[LabRow]:
    """Every bound in every round of ``count`` cases: how many are broken, and how near the nearest comes."""
    margins: dict[str, list[Array]] = {name: [] for name in ("growth", "growth_real", "kl", "mode_loss")}
    for start in range(0, count, _BLOCK):
        own = cases(rng, min(_BLOCK, count - start), _SIZES[start // _BLOCK % len(_SIZES)])
        for name, found in _margins(own, candidates, rounds).items():
            margins[name].append(found.ravel())
    for name, parts in margins.items():
        every = np.concatenate(parts)
        every = every[np.isfinite(every)]  # where there is no bound there is none to break
        broken = float((every < -_ROUNDING).sum())
        yield exact(place, f"{BROKEN}: {name}", rounds, broken, 0.0, name, count=len(every))
        if len(every):
            yield exact(place, f"{MARGIN}: {name}", rounds, float(every.min()), count=len(every))
    yield exact(
        place, ENUMERATED, rounds, _worst_quadrature(rng, candidates), 0.0, "enumeration", tolerance=_ROUNDING
    )


def _margins(own: Cases, candidates: int, rounds: int) -> dict[str, Array]:
    """(rounds, C) each: by how much a bound is kept, as a share of its own size; inf where it says nothing."""
    fitness = np.exp(own.r - own.r.max(axis=1, keepdims=True))  # e^{r - r*}: every bound scales with e^{r*}
    shifted = own.r - own.r.max(axis=1, keepdims=True)
    alone, mixed = own.p, own.p
    least = theory.growth_bound_real(own.p, shifted, candidates, own.lam)
    most = np.array([theory.kl_bound(lam, candidates) for lam in own.lam])
    out: dict[str, list[Array]] = {"growth": [], "growth_real": [], "kl": [], "mode_loss": []}
    for _ in range(rounds):
        bound = theory.growth_bound(alone, shifted, candidates)
        alone = theory.curated_update(alone, shifted, candidates)
        mixed = theory.mixed_update(mixed, own.p, shifted, candidates, own.lam)
        out["growth"].append((alone * fitness).sum(axis=1) / bound - 1)
        out["growth_real"].append((mixed * fitness).sum(axis=1) / least - 1)
        kl = (mixed * np.log(mixed / own.p)).sum(axis=1)
        out["kl"].append(np.where(np.isfinite(most), 1 - kl / most, np.inf))
        out["mode_loss"].append((mixed / own.p).min(axis=1) * (1 + own.lam) - 1)
    return {name: np.stack(parts) for name, parts in out.items()}


def _worst_quadrature(rng: np.random.Generator, candidates: int) -> float:
    """The largest relative difference of H between quadrature and all tuples, in cases small enough; NaN if none is."""
    worst = math.nan
    for size in _SIZES:
        if size ** (candidates - 1) > _TUPLES:
            break
        own = cases(rng, 20, size)
        quick = theory.choice_kernel(own.p, own.r, candidates)
        slow = np.array([enumerated(p, r, candidates) for p, r in zip(own.p, own.r, strict=True)])
        worst = float(np.nanmax([worst, np.abs(quick / slow - 1).max()]))
    return worst


def enumerated(p: Array, r: Array, candidates: int) -> Array:
    """(m,) H by listing all tuples of the K - 1 others."""
    others = np.array(list(itertools.product(range(len(p)), repeat=candidates - 1)))
    chance = p[others].prod(axis=1)
    fitness = np.exp(r - r.max())
    total = fitness[others].sum(axis=1)
    return np.asarray([candidates * f * (chance / (f + total)).sum() for f in fitness])


def limit(rng: np.random.Generator, place: int, candidates: int, rounds: int) -> Iterator[LabRow]:
    """How far K candidates are from the exponential tilt, and t rounds of them from RLHF at β = 1/t."""
    own = cases(rng, 200, 6)
    r = own.r / own.r.std(axis=1, keepdims=True)  # one spread for all: the distance is of the order of 1/K
    once, tilt = theory.curated_update(own.p, r, candidates), theory.tilted(own.p, r)
    found = np.abs(once - tilt).sum(axis=1).mean() / 2
    first = np.abs(theory.tilt_error(own.p, r, candidates)).sum(axis=1).mean() / 2
    # the next order is 1/K²; below K of 64 it is no smaller than the first
    predicted = (first, "tilt_error") if candidates >= 64 else (math.nan, "")
    yield exact(place, TILT, 1, float(found), predicted[0], predicted[1], tolerance=first * 40 / candidates, count=200)
    now = own.p
    for t in range(1, rounds + 1):
        now = theory.curated_update(now, r, candidates)
        best = theory.tilted(own.p, r, t)
        yield exact(place, OPTIMUM, t, float(np.abs(now - best).sum(axis=1).mean() / 2), count=200)
        slopes = [np.polyfit(a, np.log(b / c), 1, w=np.sqrt(c))[0] for a, b, c in zip(r, now, own.p, strict=True)]
        many = candidates >= 1024
        yield exact(
            place, SLOPE, t, float(np.mean(slopes)), t if many else math.nan, "rlhf" if many else "",
            tolerance=0.02 * t, count=200,
        )


def optimum(p: Array, r: Array, beta: float) -> Array:
    """(m,) argmax E_q[r] - β KL(q‖p), by numerical optimisation that knows nothing of tilts."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    def loss(logit: Array) -> tuple[float, Array]:
        log_q = logit - logsumexp(logit)
        q, gain = np.exp(log_q), r / beta - (log_q - np.log(p))
        value = float(q @ gain)
        return -value, -(q * (gain - value))

    logit = minimize(loss, np.log(p), jac=True, method="BFGS", options={"gtol": 1e-10}).x
    return np.asarray(np.exp(logit - logsumexp(logit)))


def rlhf(rng: np.random.Generator, place: int, rounds: int) -> Iterator[LabRow]:
    """The optimum found numerically against p_0 e^{tr}, the model after t rounds of K → ∞."""
    own = cases(rng, 20, 6)
    r = own.r / own.r.std(axis=1, keepdims=True)
    p = own.p + 0.01
    p /= p.sum(axis=1, keepdims=True)
    for t in range(1, min(rounds, _MOST_ROUNDS) + 1):
        far = [np.abs(optimum(a, b, 1 / t) - theory.tilted(a, b, t)).sum() / 2 for a, b in zip(p, r, strict=True)]
        yield exact(place, OPTIMUM, t, float(np.max(far)), 0.0, "rlhf", tolerance=1e-6, count=len(far))

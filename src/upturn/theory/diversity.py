"""The diversity that an ideal learner keeps, round by round: one Gaussian, or shares on a finite support.

Means are followed exactly (selection, bias of sampling, the mixture of every policy); what chance takes is added to
first order in 1/n. `docs/theory.md` derives both recursions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

import upturn.theory.gaussian as gaussian
from upturn import seeds
from upturn.theory.case import Case
from upturn.theory.selection import after_chain
from upturn.types import Array

_NODES = 2000  # points that represent a Gaussian where its samples are selected; fixed, whitened exactly


@dataclass(frozen=True)
class GaussianLearner:
    """A Gaussian learner at round 0, and the data's moments: ``mean`` (d,), ``covariance`` (d, d).

    reward    (m, d) points -> (m,) rewards; None where nothing is selected by a reward
    division  of the covariance's estimate
    """

    mean: Array
    covariance: Array
    reward: Callable[[Array], Array] | None = None
    division: gaussian.Division = "n"


@dataclass(frozen=True)
class DiscreteLearner:
    """A learner of shares ``p`` (m,) on a finite support, its ``rewards`` (m,) or None; temperature: p^(1/τ)."""

    p: Array
    rewards: Array | None = None


class MixtureParts(NamedTuple):
    """Of one round's mixture: the part of all that is ``synthetic``, and of the synthetic part what is ``newest``."""

    synthetic: float
    newest: float


def diversity_left(case: Case, start: GaussianLearner | DiscreteLearner | None, rounds: int) -> Array:
    """(rounds + 1,) diversity left, 1 at round 0, of a learner that errs only through its finite sample.

    Of a Gaussian the geometric mean of the standard deviations, det(Σ_t/Σ_0)^{1/2d}, on the typical path; of shares
    the effective number 1/Σp². Where nothing is known of the model (None), what chance and temperature leave of one
    Gaussian, times what curation leaves of the effective number of samples with the case's rewards.
    Raises ValueError where n samples cannot give a covariance in d dimensions.
    """
    if isinstance(start, GaussianLearner):
        return _normal(case, start, rounds)
    if isinstance(start, DiscreteLearner):
        return _shares(case, start, rounds)
    left = _normal(case, GaussianLearner(np.zeros(1), np.eye(1)), rounds)
    if not case.by_reward:
        return left
    rewards = case.supposed_rewards
    samples = DiscreteLearner(np.full(len(rewards), 1 / len(rewards)), rewards)
    endless = replace(case, temperature=1.0)
    return np.asarray(left * _shares(endless, samples, rounds, chance=False))


def parts(case: Case, number: int) -> MixtureParts:
    """The mixture of round ``number`` (from 1), by weight."""
    growing = case.accumulates
    newest = 1 / number if growing else 1.0
    if case.synthetic_only:
        return MixtureParts(1.0, newest)
    if case.lam is not None:
        return MixtureParts(case.lam / (1 + case.lam), newest)
    synthetic = case.n * (number if growing else 1)
    return MixtureParts(synthetic / (synthetic + case.real), newest)


def chosen(weights: Array, rewards: Array, case: Case) -> Array:
    """(m,) shares after the case's curators: :func:`upturn.theory.selection.after_chain`."""
    return after_chain(weights, rewards, case.selection, case.candidates)


def _subsample(case: Case, number: int) -> float:
    """Draws that a model fitted on a part of the pool is worth, drawn without replacement; no limit where it is all.

    With λ real and synthetic rows are drawn apart, so many of each.
    """
    if not case.subsamples:
        return math.inf
    real, made = (0 if case.synthetic_only else case.real), case.n * number
    size = min(case.size or case.real or case.n, real + made)
    share = parts(case, number).synthetic if case.lam is not None else None
    if share is None:
        error = _left_out(size, real + made)
    else:
        error = (1 - share) ** 2 * _left_out((1 - share) * size, real) + share**2 * _left_out(share * size, made)
    return 1 / error if error > 0 else math.inf


def _left_out(drawn: float, pool: float) -> float:
    """Variance of a share among ``drawn`` of ``pool`` rows without replacement, in units of that of one row."""
    return 1 / drawn - 1 / pool if 0 < drawn < pool else 0.0


def _normal(case: Case, start: GaussianLearner, rounds: int) -> Array:
    data = np.asarray(start.mean, dtype=np.float64), np.asarray(start.covariance, dtype=np.float64)
    dim = len(data[0])
    if case.n <= dim:
        raise ValueError(f"{case.n} samples cannot give a covariance in {dim} dimensions")
    nodes = _whitened(dim)
    model = pool = data
    at_first = np.linalg.slogdet(data[1])[1]
    logs = [0.0]
    for number in range(1, rounds + 1):
        synthetic, newest = parts(case, number)
        drawn = model[0] + case.temperature * nodes @ np.linalg.cholesky(model[1]).T
        weights = np.full(len(nodes), 1 / len(nodes))
        if start.reward is not None:
            weights = chosen(weights, np.asarray(start.reward(drawn), dtype=np.float64), case)
        mean = weights @ drawn
        spread = (drawn - mean).T @ ((drawn - mean) * weights[:, None])
        made = mean, spread * _chance(case.n, dim, synthetic * newest, start.division)
        pool = made if newest == 1 else _blend(pool, made, newest)
        real = data[0], data[1] * _chance(_real(case), dim, 1 - synthetic, start.division)
        model = _blend(real, pool, synthetic)
        model = model[0], model[1] * _chance(_subsample(case, number), dim, 1.0, start.division)
        sign, log_det = np.linalg.slogdet(model[1])
        if sign <= 0 or log_det - at_first < -60 * dim:  # a collapse beyond what float64 resolves: it stays there
            return np.asarray(np.exp(logs + [logs[-1] - 30.0] * (rounds + 1 - len(logs))))
        logs.append((log_det - at_first) / (2 * dim))
    return np.asarray(np.exp(logs))


def _real(case: Case) -> float:
    """Real samples that are new in each round; without limit where they are the same, and err only once."""
    return float(case.real) if case.fresh else math.inf


def _chance(n: float, dim: int, share: float, division: gaussian.Division) -> float:
    """What finite samples leave of the newest part's covariance, where it has ``share`` of the mixture.

    The mean loss is share/n (division by n); the typical path loses more, by the noise of log det, of second order in
    the share: at share 1 the sum is the exact step of :func:`upturn.theory.mean_log_det`.
    """
    if n <= dim or share == 0 or math.isinf(n):
        return 1.0  # too few for a covariance of their own: the others carry it
    whole = gaussian.mean_log_det(n, dim, 1, 0.0, division) / dim
    bias = math.log1p(-1 / n) if division == "n" else 0.0
    lost = math.log1p(-share / n) if division == "n" else 0.0
    return math.exp(lost + share * (whole - bias))


def _blend(one: tuple[Array, Array], other: tuple[Array, Array], share: float) -> tuple[Array, Array]:
    """Moments of the mixture (1 - share) one + share other."""
    gap = other[0] - one[0]
    covariance = (1 - share) * one[1] + share * other[1] + share * (1 - share) * np.outer(gap, gap)
    return one[0] + share * gap, covariance


def _whitened(dim: int) -> Array:
    """(_NODES, d) points with mean 0 and covariance 1 exactly."""
    drawn = seeds.generator(seeds.key("foresight", dim)).standard_normal((_NODES, dim))
    drawn -= drawn.mean(axis=0)
    factor = np.linalg.cholesky(drawn.T @ drawn / len(drawn))
    return np.asarray(np.linalg.solve(factor, drawn.T).T)


def _shares(case: Case, start: DiscreteLearner, rounds: int, chance: bool = True) -> Array:
    """The mean path, and the excess of Σp² that chance has added: exact without selection and bias."""
    data = np.asarray(start.p, dtype=np.float64)
    n = case.n if chance else math.inf
    model = pool = data
    excess = 0.0  # of the pool of synthetic samples
    own = 0.0  # of the model: the synthetic part's, what fresh real data and a subsample of the pool err, none shared
    shared = 0.0  # the factor by which the model's deviation is the pool's
    same = [float(np.sum(data**2))]
    for number in range(1, rounds + 1):
        synthetic, newest = parts(case, number)
        made = _tempered(model, case.temperature)
        if start.rewards is not None:
            made = chosen(made, np.asarray(start.rewards, dtype=np.float64), case)
        carried = shared / case.temperature  # cold sampling widens what is uneven: p^(1/τ) has the slope 1/τ
        apart = own / case.temperature**2
        noise = apart + max(1 - float(np.sum(made**2)) - apart - carried**2 * excess, 0.0) / n
        excess = min(((1 - newest) + newest * carried) ** 2 * excess + newest**2 * noise, 1.0)
        pool = (1 - newest) * pool + newest * made
        model = (1 - synthetic) * data + synthetic * pool
        shared, mean = synthetic, float(np.sum(model**2))
        if chance:
            own = (1 - synthetic) ** 2 * (1 - same[0]) / _real(case) + (1 - mean) / _subsample(case, number)
        same.append(min(mean + synthetic**2 * excess + own, 1.0))
    return same[0] / np.array(same)


def _tempered(p: Array, temperature: float) -> Array:
    if temperature == 1:
        return p
    with np.errstate(divide="ignore"):
        logit = np.log(p) / temperature
    weight = np.exp(logit - logit.max())
    return np.asarray(weight / weight.sum())

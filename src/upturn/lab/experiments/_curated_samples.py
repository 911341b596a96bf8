"""Curation of samples: classes that run away, and mixtures in the plane under the rewards of Ferbach et al. 2024."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from upturn import seeds, theory
from upturn.config import components
from upturn.lab.experiments import _gaussian_mixtures
from upturn.lab.experiments._gaussian_mixtures import Mixtures
from upturn.lab.experiments._policies import real_weight
from upturn.lab.rows import LabRow, measured
from upturn.types import Array

FAVOURED, REWARD, GROWTH, VARIANCE = "share of the favoured class", "mean reward", "E[e^r]", "Var[e^r]"
KEPT = "modes kept"
_RADIUS, _STD = 2.0, 0.1  # of the ring of eight Gaussians, as the source `points` has it
_PARTS = {"mixture": 8, "moons": 24}  # Gaussians that make the data up
_STEPS, _FIRST_STEPS = 3, 200  # of EM: a round's, from the model before; the data's own fit
_IDEAL = 4000  # support on which the ideal learner is followed
_SEEN = 0.1  # of its real share: a mode with a smaller share of the samples near it is lost


def favoured(
    rng: np.random.Generator, place: int, candidates: int, lam: float, gap: float, n: int, replicas: int, rounds: int
) -> Iterator[LabRow]:
    """Two equal classes, rewards ±gap/2, n choices a round learned perfectly: only the number of good ones matters."""
    from scipy.stats import binom

    w, good_ones = real_weight(lam), np.arange(candidates + 1)
    share, good = np.full(replicas, 0.5), math.exp(gap)
    reference, reward = np.full(2, 0.5), np.array([gap / 2, -gap / 2])
    ideal = reference
    for t in range(1, rounds + 1):
        groups = rng.multinomial(n, binom.pmf(good_ones, candidates, share[:, None]))
        won = rng.binomial(groups, good_ones * good / (good_ones * good + (candidates - good_ones))).sum(axis=1)
        share = w * 0.5 + (1 - w) * won / n
        ideal = theory.mixed_update(ideal, reference, reward, candidates, lam)
        # finite n and a nonlinear map move the mean by terms of the order of t/n
        yield measured(place, FAVOURED, t, share, float(ideal[0]), "mixed_update", tolerance=2 * t / n)
    if not math.isinf(lam):
        settled = float(theory.fixed_point(reference, reward, candidates, lam)[0])
        reached = abs(float(ideal[0]) - settled) < 1e-3
        yield measured(
            place, f"settled {FAVOURED}", rounds, share, settled, "fixed_point", tolerance=1e-3 + 2 * rounds / n,
            meaningful=reached,
        )


@dataclass(frozen=True)
class ClosenessReward:
    """r(x) = -γ max(0, ‖x - x*‖ - τ): clipped distance to the nearest target (Ferbach et al. 2024, section 4.1).

    "confidence": γ times the greatest posterior of a component of the data, the reward of their image experiments.
    """

    kind: str  # point | cluster | confidence
    data: str
    gamma: float = 2.0
    clip: float = 0.3

    def __call__(self, x: Array) -> Array:
        """(…,) of points (…, 2)."""
        if self.kind == "confidence":
            joint = truth(self.data).log_joint(x.reshape(1, -1, 2))[0]
            best = joint.max(axis=1)
            shares = np.exp(best - np.log(np.exp(joint - best[:, None]).sum(axis=1)) - best)
            return np.asarray(self.gamma * shares.reshape(x.shape[:-1]))
        far = np.linalg.norm(x[..., None, :] - self.targets(), axis=-1).min(axis=-1)
        return np.asarray(-self.gamma * np.maximum(far - self.clip, 0.0))

    def targets(self) -> Array:
        """(k, 2): one component's mean, or those of a third of them side by side (moons: of one moon)."""
        means = truth(self.data).means[0]
        if self.kind == "point":
            return np.asarray(means[:1])
        if self.data == "moons":
            return np.asarray(means[means[:, 1] >= np.median(means[:, 1])])
        return np.asarray(means[: max(len(means) // 3, 2)])


@cache
def truth(data: str) -> Mixtures:
    """The data itself, once (1, …): a ring of eight Gaussians, or moons as 24 Gaussians that EM fitted to them."""
    parts = _PARTS[data]
    if data == "mixture":
        angle = np.arange(parts) * (2 * math.pi / parts)
        means = _RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)[None]
        return Mixtures(np.full((1, parts), 1 / parts), means, np.full(means.shape, _STD**2))
    source = components.make("source", {"name": "points", "shape": "two_moons", "n": 3000, "held_out": 0.1})
    points = source.load().train.content.astype(np.float64)[None]
    rng = seeds.generator(seeds.key("lab curation moons"))
    start = points[:, rng.choice(points.shape[1], parts, replace=False)]
    begin = Mixtures(np.full((1, parts), 1 / parts), start, np.full(start.shape, 0.1))
    return _gaussian_mixtures.fit(points, np.full(points.shape[1], 1 / points.shape[1]), begin, _FIRST_STEPS)


def rounds_of(
    rng: np.random.Generator, reward: ClosenessReward, candidates: int, lam: float, n: int, replicas: int, rounds: int
) -> Iterator[Mixtures]:
    """Models of round 0, 1, …: n chosen of n·K samples and n real ones, weights λ : 1, fitted by EM from the last."""
    real = Mixtures(*(np.tile(part, (replicas, *[1] * (part.ndim - 1))) for part in truth(reward.data)))
    w = real_weight(lam)
    weights = np.repeat([w / n, (1 - w) / n], n)
    now = real
    yield now
    for _ in range(rounds):
        x = now.sample(rng, n * candidates)[0].reshape(replicas, n, candidates, 2)
        best = np.argmax(reward(x) + rng.gumbel(size=x.shape[:3]), axis=2)
        chosen = np.take_along_axis(x, best[:, :, None, None], axis=2)[:, :, 0]
        now = _gaussian_mixtures.fit(np.concatenate([real.sample(rng, n)[0], chosen], axis=1), weights, now, _STEPS)
        yield now


def quantities(
    rng: np.random.Generator, place: int, t: int, model: Mixtures, reward: ClosenessReward, ideal: Array
) -> Iterator[LabRow]:
    """Reward, E and Var of e^r of the samples of a round's models, beside those of an ideal learner."""
    x = model.sample(rng, 2000)[0]
    r = reward(x)
    fitness = np.exp(r)
    for name, values, predicted in zip(
        (REWARD, GROWTH, VARIANCE), (r.mean(axis=1), fitness.mean(axis=1), fitness.var(axis=1)), ideal, strict=True
    ):
        yield measured(place, name, t, values, float(predicted), "ideal_learner", meaningful=False)
    if reward.data == "mixture":
        near = np.linalg.norm(x[:, :, None] - truth("mixture").means[0], axis=3) < 3 * _STD
        kept = (near.mean(axis=1) > _SEEN / _PARTS["mixture"]).sum(axis=1)
        yield measured(place, KEPT, t, kept)


def ideal_path(reward: ClosenessReward, candidates: int, lam: float, rounds: int) -> Array:
    """(rounds + 1, 3) mean reward, E and Var of e^r of a learner without error, on a support of samples of the data."""
    rng = seeds.generator(seeds.key("lab curation ideal", reward.data))
    r = reward(truth(reward.data).sample(rng, _IDEAL)[0])[0]
    reference = np.full(_IDEAL, 1 / _IDEAL)
    p, path = reference, []
    for _ in range(rounds + 1):
        fitness = np.exp(r)
        mean = float(p @ fitness)
        path.append([float(p @ r), mean, float(p @ (fitness - mean) ** 2)])
        p = theory.mixed_update(p, reference, r, candidates, lam)
    return np.array(path)

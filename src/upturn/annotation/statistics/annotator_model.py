"""Estimates the reward of each candidate, and which share of each annotator's answers is a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from upturn.annotation.statistics.comparisons import Compared
from upturn.annotation.statistics.contests import TIED, Contests, contests_of
from upturn.types import Array

_DRAWS = 256  # points of the integral over a set's rewards: with 8,192 reliabilities moved by less than 0.01
_PRIOR = 1.0  # pseudo-count of informed answers per annotator: matters only where votes are few
MOST = 12  # candidates of a set: beyond it the points are too few for the integral
_STEPS = 200


@dataclass(frozen=True)
class Rewards:
    """Estimates for I candidates in their sets.

    reward  (I,) posterior mean, nats, relative to the set's mean;  error (I,) its posterior standard deviation
    best    (I,) posterior probability of being the best of its set
    reliability (P,) share of an annotator's answers that are not guesses;  answers (P,) their number
    spread  standard deviation of rewards within a set, nats: how strongly preferences differ between candidates
    """

    reward: Array
    error: Array
    best: Array
    reliability: Array
    answers: Array
    spread: float


def noisy_choice(found: Compared) -> Rewards:
    """Maximum likelihood of reliabilities, with the rewards integrated out.

    An annotator answers by Plackett–Luce on rewards s (Bradley–Terry for two; Davidson's tie) with their probability r,
    else guesses: all orders equally likely, ties at the overall rate. For two without ties this is CrowdBT (Chen,
    Bennett, Collins-Thompson & Horvitz 2013, equation 6) with eta = (1 + r) / 2, restricted to annotators who do not
    answer against their preference. Rewards are normal with one standard deviation, which is fitted too.

    Departs from the paper, which maximises over rewards and reliabilities together: with a handful of votes on each
    candidate that gives every annotator a reliability near 1 (docs/decisions/). "All bad" implies no order and is
    left out here; sets of more than 12 candidates get NaN.
    """
    from scipy.optimize import minimize

    model = _Model.of(found)
    people = len(found.answers.people)
    begin = np.concatenate([np.full(people, 1.0), [0.0, -1.0]])
    bounds = [(-8.0, 8.0)] * people + [(-3.0, 3.0), (-8.0, 8.0)]
    done = minimize(model.loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
    return model.posterior(done.x)


@dataclass(frozen=True)
class _Model:
    """Votes grouped by pattern: votes have the same pattern where they give the same answer on the same places.

    place   (I,) the position of a candidate in its set
    groups  (V,) the set of each vote, person (V,), weight (V,), pattern (V,) of the V informative votes
    stages  of the patterns: there (S, K) places, -1 where there is none; won (S,); may_tie (S,); owner (S,) the pattern
    guess   (U,) log-probability of the pattern under a guess
    points  (M, K) standard normal
    """

    found: Compared
    place: Array
    group: Array
    person: Array
    weight: Array
    pattern: Array
    there: Array
    won: Array
    may_tie: Array
    owner: Array
    guess: Array
    points: Array

    @classmethod
    def of(cls, found: Compared) -> _Model:
        order = np.argsort(found.set_of, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(found.size)[:-1]])
        place[order] = np.arange(len(order)) - np.repeat(starts, found.size)
        rows = np.flatnonzero(found.size[found.group] <= MOST)
        own: Contests = contests_of(found.answers, rows)
        own = own.take(np.lexsort((own.vote, found.group[own.vote])))  # by set, so that sums over sets are slices
        there = np.where(own.there >= 0, place[np.maximum(own.there, 0)], -1)
        fresh = np.diff(own.vote, prepend=-1) != 0
        votes, vote = own.vote[fresh], np.cumsum(fresh)
        lines = np.concatenate([there, own.won[:, None], own.may_tie[:, None]], axis=1).astype(np.int64)
        kinds, line = np.unique(lines, axis=0, return_inverse=True)
        spoken: dict[tuple[int, ...], int] = {}
        parts = np.split(line.reshape(-1), np.flatnonzero(np.diff(vote)) + 1)
        pattern = np.array([spoken.setdefault(tuple(part.tolist()), len(spoken)) for part in parts], dtype=np.int64)
        stages = np.array([stage for pattern_ in spoken for stage in pattern_], dtype=np.int64)
        owner = np.repeat(np.arange(len(spoken)), [len(pattern_) for pattern_ in spoken])
        chosen = kinds[stages]
        tied, may = chosen[:, -2] == TIED, chosen[:, -1] == 1
        rate = (float((own.won == TIED).sum()) + 1) / (float(own.may_tie.sum()) + 2)
        width = (chosen[:, :-2] >= 0).sum(axis=1)
        each = np.where(tied, math.log(rate), np.where(may, math.log(1 - rate), 0.0) - np.log(width))
        guess = np.bincount(owner, weights=each, minlength=len(spoken))
        return cls(
            found, place, found.group[votes], found.answers.person[votes], found.weight[votes], pattern,
            chosen[:, :-2], chosen[:, -2], may, owner, guess, _points(int(min(found.size.max(initial=1), MOST))),
        )

    def _vote_likelihoods(self, spread: float, nu: float) -> tuple[Array, Array, Array]:
        """(U, M) log-probability of each pattern at each point, and its derivatives by log spread and by log nu."""
        mask = self.there >= 0
        own = np.where(mask[:, None, :], spread * self.points[:, np.maximum(self.there, 0)].transpose(1, 0, 2), -np.inf)
        size = mask.sum(axis=1)[:, None]
        finite = np.where(mask[:, None, :], own, 0.0)
        mean = finite.sum(axis=2) / size
        tie = np.where(self.may_tie[:, None], math.log(nu) + mean, -np.inf)
        top = np.maximum(own.max(axis=2), tie)
        mass, tied_mass = np.exp(own - top[..., None]), np.exp(tie - top)
        total = mass.sum(axis=2) + tied_mass
        expected = ((mass * finite).sum(axis=2) + tied_mass * mean) / total
        tied = (self.won == TIED)[:, None]
        value = np.where(tied, tie, np.take_along_axis(own, np.maximum(self.won, 0)[:, None, None], axis=2)[..., 0])
        value = np.where(tied & ~self.may_tie[:, None], -np.inf, value)
        feature = np.where(tied, mean, np.take_along_axis(finite, np.maximum(self.won, 0)[:, None, None], 2)[..., 0])
        stages = (value - top - np.log(total), feature - expected, tied - tied_mass / total)
        count = len(self.guess)
        out = []
        for stage in stages:
            summed = np.zeros((count, len(self.points)))
            np.add.at(summed, self.owner, stage)
            out.append(summed)
        return out[0], out[1], out[2]

    def _likelihoods(self, free: Array) -> tuple[Array, Array, tuple[Array, Array, Array]]:
        """(V, M) probability that each vote is not a guess, (G, M) log-likelihood of each set's votes,
        and the result of ``_vote_likelihoods``."""
        people = len(self.found.answers.people)
        known = 1 / (1 + np.exp(-free[:people]))[self.person][:, None]
        parts = self._vote_likelihoods(math.exp(free[people]), math.exp(free[people + 1]))
        by_taste = known * np.exp(parts[0])[self.pattern]
        total = by_taste + (1 - known) * np.exp(self.guess)[self.pattern][:, None]
        sums = np.zeros((self.found.sets, len(self.points)))
        if len(total):
            starts = np.flatnonzero(np.diff(self.group, prepend=-1))
            sums[self.group[starts]] = np.add.reduceat(self.weight[:, None] * np.log(total), starts, axis=0)
        return by_taste / total, sums, parts

    def loss(self, free: Array) -> tuple[float, Array]:
        """Minus the marginal log-likelihood with its prior, and the gradient."""
        people = len(self.found.answers.people)
        taste, sums, parts = self._likelihoods(free)
        top = sums.max(axis=1, keepdims=True)
        mass = np.exp(sums - top)
        value = float((np.log(mass.mean(axis=1)) + top[:, 0]).sum())
        share = (mass / mass.sum(axis=1, keepdims=True))[self.group] * self.weight[:, None]
        known = 1 / (1 + np.exp(-free[:people]))
        value += _PRIOR * float(np.log(known).sum())
        # d log(r p + (1 - r) q) / d logit r = share known - r
        steps = (share * taste).sum(axis=1) - share.sum(axis=1) * known[self.person]
        gradient = np.bincount(self.person, weights=steps, minlength=people) + _PRIOR * (1 - known)
        both = share * taste
        further = [float((both * part[self.pattern]).sum()) for part in parts[1:]]
        return -value, -np.concatenate([gradient, further])

    def posterior(self, free: Array) -> Rewards:
        people = len(self.found.answers.people)
        spread = math.exp(free[people])
        sums = self._likelihoods(free)[1]
        mass = np.exp(sums - sums.max(axis=1, keepdims=True))
        mass /= mass.sum(axis=1, keepdims=True)
        set_of, size = self.found.set_of, self.found.size
        reward, error, best = (np.full(len(set_of), np.nan) for _ in range(3))
        for k in np.unique(size[size <= MOST]).tolist():
            rows = np.flatnonzero(size[set_of] == k)
            own = spread * (self.points[:, :k] - self.points[:, :k].mean(axis=1, keepdims=True))
            first = (own == own.max(axis=1, keepdims=True)).astype(np.float64)
            weights, place = mass[set_of[rows]], self.place[rows]
            reward[rows] = (weights @ own)[np.arange(len(rows)), place]
            second = (weights @ own**2)[np.arange(len(rows)), place]
            error[rows] = np.sqrt(np.maximum(second - reward[rows] ** 2, 0.0))
            best[rows] = (weights @ first)[np.arange(len(rows)), place]
        counts = np.bincount(self.person, minlength=people)
        return Rewards(reward, error, best, 1 / (1 + np.exp(-free[:people])), counts, spread)


def _points(width: int) -> Array:
    """(M, width) quasi-random standard normal numbers (scrambled Sobol points)."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    raw = qmc.Sobol(width, scramble=True, rng=np.random.default_rng(0)).random(_DRAWS)
    found: Array = ndtri(np.clip(raw, 1e-6, 1 - 1e-6))
    return found

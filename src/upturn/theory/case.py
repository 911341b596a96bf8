"""A recipe's loop in the symbols of the theory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

import upturn.theory.curation as curation
import upturn.theory.real_data as real_data
import upturn.theory.settling as settling
from upturn.types import Array, MixingCase

_ACCUMULATING: tuple[MixingCase, ...] = ("accumulate", "accumulate_subsample")
ONE_OF_K = ("choice", "best_of_n", "picked")
BY_ODDS = ("choice", "picked")  # people, too, choose by odds e^r (Luce 1959): that is what the theory calls curation
FRACTION = ("threshold", "top_fraction")
NOT_BY_REWARD = ("", "none", "deduplicate")
_STANDARD_REWARDS = 256  # quantiles of N(0, 1), where no rewards were measured


@dataclass(frozen=True)
class Case:
    """The loop in the symbols of the theory; see :func:`upturn.theory.verdict`."""

    policy: MixingCase
    n: int
    real: int
    rounds: int
    lam: float | None
    curator: str
    candidates: int
    kept: float | None
    temperature: float
    guidance: float
    modes: int
    size: int | None
    rewards: Array | None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.policy not in get_args(MixingCase):
            raise ValueError(f"policy '{self.policy}' is none of {', '.join(get_args(MixingCase))}")
        if self.n < 2 or self.rounds < 1 or self.real < 0 or self.modes < 1 or self.candidates < 1:
            raise ValueError("needs n >= 2 synthetic samples a round, one round, mode and candidate or more, real >= 0")
        if self.temperature <= 0 or (self.lam is not None and self.lam < 0):
            raise ValueError("temperature must be above 0 and λ not below 0")
        if self.fresh and self.synthetic_only:
            raise ValueError("fresh real data needs real data")

    @property
    def accumulates(self) -> bool:
        """Whether samples of earlier rounds stay in the mixture."""
        return self.policy in _ACCUMULATING

    @property
    def subsamples(self) -> bool:
        """Whether a round trains on ``size`` rows drawn from the pool."""
        return self.policy == "accumulate_subsample"

    @property
    def fresh(self) -> bool:
        """Whether the real rows of a round are new."""
        return self.policy == "fresh"

    @property
    def last_lam(self) -> float:
        """λ of the last round: as stated, else by the counts; inf without real data."""
        if self.real == 0:
            return math.inf
        return (self.rounds if self.accumulates else 1) * self.n / self.real if self.lam is None else self.lam

    @property
    def synthetic_only(self) -> bool:
        return math.isinf(self.last_lam)

    @property
    def held(self) -> bool:
        """Whether real data keep a share of every round's mixture that does not shrink."""
        return not self.synthetic_only and not (self.accumulates and self.lam is None)

    @property
    def by_reward(self) -> bool:
        return self.curator not in NOT_BY_REWARD and not (self.curator in ONE_OF_K and self.candidates == 1)

    @property
    def amplification(self) -> float:
        """The most that selection can multiply a probability by: K, or 1 / the fraction kept; inf if unknown."""
        if self.curator in FRACTION:
            return 1 / self.kept if self.kept else math.inf
        return float(self.candidates) if self.candidates > 1 else math.inf

    @property
    def reward_range(self) -> float:
        if self.curator != "choice" or (self.rewards is None and self.bounds is None):
            return math.inf
        return float(np.ptp(np.asarray(self.bounds if self.rewards is None else self.rewards)))

    @property
    def tempered(self) -> float:
        """What is left of a Gaussian's variance for good with real data in every round; inf if it grows for ever."""
        room = 1 + self.last_lam * (1 - self.temperature**2)
        return real_data.tempered_variance(self.last_lam, self.temperature) if room > 0 else math.inf

    @property
    def curated_half_life(self) -> float:
        """Rounds until curation alone halves the effective number of samples; inf if it does not or nobody can say."""
        if not self.by_reward:
            return math.inf
        if self.curator in FRACTION:
            return math.log(2) / math.log(self.amplification) if 1 < self.amplification < math.inf else math.inf
        if self.curator == "best_of_n":
            return curation.best_of_n_half_life(self.candidates)
        return settling.curated_half_life(self.supposed_rewards, max(self.candidates, 2))

    @property
    def supposed_rewards(self) -> Array:
        """(m,) as measured, else even over their bounds, else the quantiles of N(0, 1)."""
        if self.rewards is not None:
            return self.rewards
        even = (np.arange(_STANDARD_REWARDS) + 0.5) / _STANDARD_REWARDS
        if self.bounds is not None:
            return np.asarray(self.bounds[0] + even * (self.bounds[1] - self.bounds[0]))
        from scipy.special import ndtri

        return np.asarray(ndtri(even))

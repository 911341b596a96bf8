"""A recipe's loop in the symbols of the theory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

import upturn.theory.curation as curation
import upturn.theory.real_data as real_data
import upturn.theory.settling as settling
from upturn.theory.selection import Applied, Selector, applied
from upturn.types import Array, MixingCase

_ACCUMULATING: tuple[MixingCase, ...] = ("accumulate", "accumulate_subsample")
_STANDARD_REWARDS = 256  # quantiles of N(0, 1), where no rewards were measured


@dataclass(frozen=True)
class Case:
    """The loop in the symbols of the theory; see :func:`upturn.theory.verdict`."""

    policy: MixingCase
    n: int
    real: int
    rounds: int
    lam: float | None
    selection: tuple[Selector, ...]
    candidates: int
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
    def selecting(self) -> list[Applied]:
        """The curators of the chain that change shares; those at one candidate a prompt, and those that do not read
        rewards or votes, change none."""
        return [step for step in applied(self.selection, self.candidates) if step.selects]

    @property
    def by_reward(self) -> bool:
        return bool(self.selecting)

    @property
    def only_choice(self) -> Selector | None:
        """The selector that is all selection of the case, where it draws by the scorers' rewards among all K."""
        steps = self.selecting
        if len(steps) != 1 or steps[0].selector.law != "odds" or steps[0].selector.by_votes or steps[0].present < 1:
            return None
        return steps[0].selector

    @property
    def amplification(self) -> float:
        """The most that the chain can multiply a probability by: the product over its steps; inf if unknown.

        K of one in K, 1 / the share kept of a top share. An upper bound, as one sample need not have the most in each
        step.
        """
        return math.prod(step.amplification for step in self.selecting) if self.selecting else math.inf

    @property
    def reward_range(self) -> float:
        """Of the rewards, in units of the temperature of the choice; inf where that is not all selection."""
        choice = self.only_choice
        if choice is None or (self.rewards is None and self.bounds is None):
            return math.inf
        return float(np.ptp(np.asarray(self.bounds if self.rewards is None else self.rewards))) / choice.temperature

    @property
    def tempered(self) -> float:
        """What is left of a Gaussian's variance for good with real data in every round; inf if it grows for ever."""
        margin = 1 + self.last_lam * (1 - self.temperature**2)
        return real_data.tempered_variance(self.last_lam, self.temperature) if margin > 0 else math.inf

    @property
    def curated_half_life(self) -> float:
        """Rounds until curation alone halves the effective number of samples; inf if it does not or that is unknown.

        The rates (1 / half-life) of the chain's steps add: exact for top shares, where log(1 / share) adds, and an
        approximation where kinds of selection are mixed.
        """
        rate = sum(1 / self._half_life(step) for step in self.selecting)
        return 1 / rate if rate else math.inf

    def _half_life(self, step: Applied) -> float:
        if step.selector.law == "top":
            most = step.amplification
            return math.log(2) / math.log(most) if 1 < most < math.inf else math.inf
        if step.selector.law == "best":
            return curation.best_of_n_half_life(step.amplification)
        return settling.curated_half_life(self.supposed_rewards / step.selector.temperature, step.amplification)

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

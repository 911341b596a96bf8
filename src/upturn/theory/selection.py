"""A chain of curators in the symbols of the theory, and the shares it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upturn.protocols import Curator, SelectionLaw
from upturn.theory.curation import choice_kernel
from upturn.types import Array


@dataclass(frozen=True)
class Selector:
    """One curator of a chain.

    law          "odds": one candidate of each prompt by softmax(reward / ``temperature``); "best": the ``keep`` best
                 candidates of each prompt; "top": the best ``share`` of all samples that it reads; "independent": a
                 ``share`` that does not depend on the reward
    share        of the samples that it reads, what it keeps; None where that is unknown
    by_votes     annotators select, by their own odds: the scorers' rewards and their range say nothing of these
    """

    law: SelectionLaw
    share: float | None = None
    keep: int = 1
    temperature: float = 1.0
    by_votes: bool = False

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(f"a curator keeps a share above 0 and at most 1, not {self.share}")


@dataclass(frozen=True)
class Applied:
    """A selector, and what it reads: ``candidates`` of a prompt, each still there with probability ``present``."""

    selector: Selector
    candidates: int
    present: float

    @property
    def selects(self) -> bool:
        """Whether the shares after it differ from those before it."""
        law = self.selector.law
        return law == "top" or (law != "independent" and self.candidates > self.selector.keep)

    @property
    def kept_of_prompt(self) -> float:
        """Expected number of candidates that a selector among candidates keeps of a prompt: E[min(keep, present)]."""
        return float(_expected_least(self.selector.keep, self.candidates, np.array([self.present]))[0])

    @property
    def amplification(self) -> float:
        """The most that this step multiplies a probability by; inf where the share kept is unknown."""
        if not self.selects:
            return 1.0
        if self.selector.law == "top":
            return 1 / self.selector.share if self.selector.share else float("inf")
        return self.candidates * self.present / self.kept_of_prompt


def selector_of(curator: Curator, share: float | None) -> Selector:
    """The symbols of a curator that keeps ``share`` of what it reads, as its class declares them."""
    return Selector(curator.law, share, curator.keep, curator.temperature, curator.selects == "votes")


def applied(chain: Sequence[Selector], candidates: int) -> list[Applied]:
    """What each selector of the chain reads, from ``candidates`` of each prompt on.

    "top" and "independent" drop every candidate on its own, so a prompt has a binomial number of candidates left.
    After "odds" it has one, after "best" ``keep``.
    """
    found, present = [], 1.0
    for selector in chain:
        step = Applied(selector, candidates, present)
        found.append(step)
        if selector.law in ("top", "independent"):
            present *= selector.share or 1.0
        elif candidates > selector.keep:
            present, candidates = step.kept_of_prompt / selector.keep, selector.keep
    return found


def after_chain(weights: Array, rewards: Array, chain: Sequence[Selector], candidates: int) -> Array:
    """(m,) shares of what a chain keeps of ``candidates`` per prompt with shares ``weights``; infinitely many prompts.

    The selectors apply in the recipe's order, each to what the one before it left. A selector among candidates reads
    the candidates that are left of a prompt, a binomial number: of the "odds" H with candidates missing at random
    (:func:`choice_kernel`), of the "best" E[min(keep, number of present candidates above x)]. This is exact for any
    chain with at most one selector among candidates, or ``keep`` 1; after "best" with a larger ``keep`` the kept
    candidates of a prompt count as independent. "independent" changes no share, but how many candidates are left.
    A "top" whose share is unknown changes nothing.
    """
    for step in applied(chain, candidates):
        if not step.selects or (step.selector.law == "top" and step.selector.share is None):
            continue
        if step.selector.law == "odds":
            found = weights * choice_kernel(
                weights, rewards / step.selector.temperature, step.candidates, missing=1 - step.present
            )
        else:
            found = _best(weights, rewards, step)
        weights = np.asarray(found / found.sum())
    return weights


def _best(weights: Array, rewards: Array, step: Applied) -> Array:
    """(m,) what "top" and "best" keep, before normalisation: equal rewards are one level, a tie is drawn."""
    order = np.argsort(-rewards, kind="stable")
    values, first = np.unique(-rewards[order], return_index=True)
    level = np.searchsorted(values, -rewards)
    mass = np.bincount(level, weights=weights, minlength=len(first))
    above = np.clip(np.concatenate([[0.0], np.cumsum(mass)]), 0.0, 1.0)
    if step.selector.law == "top":
        assert step.selector.share is not None
        taken = np.minimum(above / step.selector.share, 1.0)
    else:
        taken = _expected_least(step.selector.keep, step.candidates, above * step.present)
    gain = np.divide(np.diff(taken), mass, out=np.zeros_like(mass), where=mass > 0)
    return np.asarray(weights * gain[level])


def _expected_least(most: int, count: int, p: Array) -> Array:
    """(…,) E[min(most, B)] for B ~ Binomial(count, p): the sum of P(B ≥ j) over j = 1 … most."""
    if most == 1:
        return np.asarray(1 - (1 - p) ** count)
    from scipy.stats import binom

    return np.asarray(sum(binom.sf(j, count, p) for j in range(most)))

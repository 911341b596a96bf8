"""Base class of objectives: from a model's outputs to a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from upturn.protocols.component import Component
from upturn.types import Batch, Loss, Outputs


class Objective(Component):
    """Base class of objectives: pure, tensors only."""

    example: ClassVar[str]
    """What an example is: "sample", "group" or "rollout"."""
    inputs: ClassVar[frozenset[str]]
    """What ``Outputs`` must hold."""
    accepts: ClassVar[frozenset[str]]
    """The kinds of likelihood that it is defined for: "exact", "elbo", "surrogate", "reward"."""
    candidates: ClassVar[int | None] = None
    """How many candidates an example has (2: pairs); None is any number."""
    ties: ClassVar[bool] = False
    """Whether it learns from ties; votes for a tie are otherwise counted and left out."""
    unrelated: ClassVar[bool] = False
    """Whether it takes unpaired labels, and beside each row the same prompt with another example's content."""
    before: ClassVar[frozenset[str]] = frozenset()
    """Which of "log_probs", "ref_log_probs" and "values" ``prepare`` needs of the whole global batch.

    The trainer computes them without gradient: columns "before_log_probs", … (N, T) with "before_mask".
    """
    maximum_likelihood: ClassVar[bool] = False
    """Whether it is weighted maximum likelihood, which a :class:`ClosedForm` model solves without gradient steps."""

    def prepare(self, batch: Batch) -> Batch:
        """Once a global batch (of rollouts: once when they are drawn): advantages, whitening, baselines."""
        raise NotImplementedError

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        raise NotImplementedError

    def steer(self, state: Mapping[str, float], batch: Batch) -> dict[str, float]:
        """What adapts as training proceeds (a KL coefficient), after each prepared batch.

        The answer is saved with the training's state and given to the next batches, a number for each example, by name.
        """
        return dict(state)

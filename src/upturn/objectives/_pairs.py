"""What the objectives on pairs have in common: which of two is chosen, what a pair weighs, what is reported of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.objectives._rows import example_weights, lengths, present
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Pairs:
    """E pairs, the better first.

    says              (E,) bool, False where a pair holds no preference: it weighs nothing
    chosen, rejected  (E,) implicit rewards, nats;  margin is their difference
    chosen_log_prob, rejected_log_prob  (E,) nats a row;  chosen_nll (E,) nats a token (a dimension)
    """

    says: Tensor
    weights: Tensor
    chosen: Tensor
    rejected: Tensor
    chosen_log_prob: Tensor
    rejected_log_prob: Tensor
    chosen_nll: Tensor

    @property
    def margin(self) -> Tensor:
        return self.chosen - self.rejected

    def loss(self, losses: Tensor, likelihood: float = 0.0) -> Loss:
        """The sum of ``losses`` (E,), each with ``likelihood`` times the chosen's negative log-prob a token added.

        So Pang et al. 2024 (Iterative Reasoning Preference Optimization), equation 1, which Llama 3 took over with 0.2
        (section 4.1.4). A mean over each completion's tokens, not over all tokens of a batch: what a pair weighs does
        not depend on its neighbours.
        """
        weight = self.weights
        if likelihood:
            losses = losses + likelihood * self.chosen_nll
        with torch.no_grad():
            metrics = {
                "accuracy": (weight * (self.margin > 0)).sum(),
                "margin": (weight * self.margin).sum(),
                "chosen_reward": (weight * self.chosen).sum(),
                "rejected_reward": (weight * self.rejected).sum(),
                "chosen_log_prob": (weight * self.chosen_log_prob).sum(),
                "rejected_log_prob": (weight * self.rejected_log_prob).sum(),
                "said_nothing": (~self.says).sum().to(weight.dtype),
            }
        return Loss((weight * losses).sum(), weight.sum(), metrics)


def sort(out: Outputs, batch: Batch, rewards: Tensor, first: Tensor, says: Tensor) -> Pairs:
    """Pairs from rewards (N,) of the rows, ``first`` (E,) bool where row 0 of the pair is the better, ``says`` (E,)."""
    says = says & present(batch).all(dim=1)
    totals = out.totals()

    def split(values: Tensor) -> tuple[Tensor, Tensor]:
        left, right = values.reshape(-1, 2).unbind(dim=1)
        return torch.where(first, left, right), torch.where(first, right, left)

    chosen, rejected = split(rewards)
    chosen_log_prob, rejected_log_prob = split(totals)
    nll = split(-totals / lengths(out))[0]
    weights = example_weights(batch, says, totals.dtype)
    return Pairs(says, weights, chosen, rejected, chosen_log_prob, rejected_log_prob, nll)


def smooth(loss: Callable[[Tensor], Tensor], margin: Tensor, label_smoothing: float) -> Tensor:
    """The loss expected if that share of the labels is the wrong way round."""
    if not label_smoothing:
        return loss(margin)
    return (1 - label_smoothing) * loss(margin) + label_smoothing * loss(-margin)


def pairs_only(name: str, batch: Batch) -> Batch:
    if batch.candidates != 2:
        raise UserError(
            f"{name} trains on pairs, got groups of {batch.candidates}",
            fix="Make pairs of them, or use listwise.",
        )
    return batch


@dataclass(frozen=True)
class Pairwise(Objective, ABC):
    """A loss of the margin between the implicit rewards of chosen and rejected.

    ``given["ranks"]`` (E, 2): 1 is best; a tie, or a pair without a preference, has weight 0 and is counted in
    the metric "said_nothing". ``given["weights"]`` and ``given["strength"]`` (E,) multiply.
    """

    beta: float
    label_smoothing: float = 0.0  # share of labels believed wrong (conservative DPO, Mitchell 2023, eq. 3)
    likelihood: float = 0.0  # of the chosen, nats a token; Llama 3 has 0.2 (section 4.1.4)

    example: ClassVar[str] = "group"
    candidates: ClassVar[int] = 2
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact"})

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must lie in [0, 0.5), got {self.label_smoothing}")
        if self.likelihood < 0:
            raise ValueError(f"likelihood is a weight and cannot be negative, got {self.likelihood}")

    @abstractmethod
    def rewards(self, out: Outputs) -> Tensor:
        """(N,) implicit reward of each row."""

    @abstractmethod
    def losses(self, margin: Tensor) -> Tensor:
        """(E,) from the margins (E,)."""

    def prepare(self, batch: Batch) -> Batch:
        return pairs_only(type(self).__name__.lower(), batch)

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        ranks = batch.given["ranks"]
        says = (ranks > 0).all(dim=1) & (ranks[:, 0] != ranks[:, 1])
        pairs = sort(out, batch, self.rewards(out), ranks[:, 0] < ranks[:, 1], says)
        return pairs.loss(self.losses(pairs.margin), self.likelihood)


@dataclass(frozen=True)
class AgainstReference(Pairwise):
    """The implicit reward is beta (log pi - log ref), of the whole row or, ``length_normalised``, a token of it.

    With a diffusion model the log-probs are surrogates at a time and noise shared by policy, reference and both
    candidates (Diffusion-DPO, Wallace et al. 2023, eq. 14: beta takes the place of beta T). A token is then a
    dimension of the image or point, as in ``likelihood``; all rows are equally long, and only beta's unit changes.
    """

    length_normalised: bool = False

    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def rewards(self, out: Outputs) -> Tensor:
        return self.beta * log_ratios(out, self.length_normalised)


def log_ratios(out: Outputs, length_normalised: bool = False) -> Tensor:
    """(N,) log pi - log ref of whole rows, or of a token of each on average."""
    assert out.ref_log_probs is not None
    ratios = out.totals() - out.totals(out.ref_log_probs)
    return ratios / lengths(out) if length_normalised else ratios

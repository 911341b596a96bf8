"""Plackett–Luce over K candidates: a full or partial ranking, or one pick of K."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from upturn.objectives._pairs import log_ratios
from upturn.objectives._ranks import better, groups_only, log_likelihood, means
from upturn.objectives._rows import example_weights, present
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Listwise(Objective):
    """-log P(the ranks of K candidates) under Plackett–Luce with rewards beta (log pi - log ref).

    ``given["ranks"]`` (E, K) say which case it is, group by group:

    - several ranks (1, 2, 3, 4): a ranking, full or partial (Zhu et al. 2023, section 4); candidates with 0 are left
      out; equal ranks say that the order between them is unknown, so (1, 2, 2, 2) is the best against the rest;
    - only 1, the others without a rank (1, 0, 0, 0): a pick, one of all that are present, softmax over
      them (Ferbach et al. 2024, eq. 1, fitted instead of sampled); several 1: the pick is among them;
    - all equal, or nothing: it weighs nothing and is counted as "said_nothing".

    With two candidates this is DPO. A group is divided by nothing: a ranking of K says more than a pair. Metrics are
    means over the (better, worse) pairs of a group. ``given["weights"]`` and ``given["strength"]`` (E,) multiply.
    """

    beta: float = 0.1  # DPO's: the implicit reward is the same
    length_normalised: bool = False

    example: ClassVar[str] = "group"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")

    def prepare(self, batch: Batch) -> Batch:
        return groups_only("listwise", batch)

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        ranks, there = batch.given["ranks"], present(batch)
        rewards = self.beta * log_ratios(out, self.length_normalised).reshape(ranks.shape)
        log_probs = log_likelihood(rewards, ranks, there)
        above = better(ranks, there)
        says = above.flatten(1).any(dim=1)
        weight = example_weights(batch, says, rewards.dtype)
        metrics = means(above, weight, rewards, {"log_prob": out.totals().reshape(ranks.shape)})
        metrics["said_nothing"] = (~says).sum().to(weight.dtype)
        return Loss(-(weight * log_probs).sum(), weight.sum(), metrics)

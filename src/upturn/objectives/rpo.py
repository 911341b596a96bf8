"""Reward-aware preference optimisation (Nemotron-4 340B technical report, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from upturn.errors import UserError
from upturn.objectives._pairs import log_ratios, pairs_only, sort
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Rpo(Objective):
    """RPO on pairs: the implicit reward gap a = beta (log-ratio gap) is fitted to the given one, b = eta (reward gap).

    The optimum of KL-regularised maximisation satisfies a = b for every pair with eta = 1, so all distances have it
    as their minimum; where the model cannot reach it they differ in what they give up:

    - ``backward_kl``: KL(sigmoid b || sigmoid a), the report's own D; with b infinite it is DPO;
    - ``forward_kl``: KL(sigmoid a || sigmoid b);
    - ``squared``: (a - b)^2 / 2, the only one that goes on telling large gaps apart.

    Forward is in the order of the arguments, D[a || b] = D[policy || given], as those who named them have it (Sun et
    al. 2025; elsewhere KL(target || model) is the one called forward). ``given["rewards"]`` (E, 2); a pair with a NaN
    weighs nothing and is counted as "said_nothing"; equal rewards do say something: a = 0. Ranks are not looked at.
    """

    beta: float = 0.1  # DPO's: the implicit reward is the same
    eta: float = 1.0  # the optimum's own scale
    distance: Literal["squared", "forward_kl", "backward_kl"] = "backward_kl"
    length_normalised: bool = False
    likelihood: float = 0.0  # of the chosen, nats a token

    example: ClassVar[str] = "group"
    candidates: ClassVar[int] = 2
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.eta <= 0:
            raise ValueError(f"beta and eta must be above 0, got {self.beta} and {self.eta}")
        if self.likelihood < 0:
            raise ValueError(f"likelihood is a weight and cannot be negative, got {self.likelihood}")

    def prepare(self, batch: Batch) -> Batch:
        if "rewards" not in batch.given:
            raise UserError(
                "rpo needs the rewards of both candidates, and these pairs have none",
                fix="Add a scorer, or use dpo, which needs only the order.",
            )
        return pairs_only("rpo", batch)

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        given = batch.given["rewards"].to(out.log_probs.dtype)
        gap = given[:, 0] - given[:, 1]
        says = torch.isfinite(gap)
        gap = torch.where(says, gap, 0.0)
        rewards = self.beta * log_ratios(out, self.length_normalised)
        pairs = sort(out, batch, rewards, gap >= 0, says)
        return pairs.loss(_distance(self.distance, pairs.margin, self.eta * gap.abs()), self.likelihood)


def _distance(name: str, implicit: Tensor, given: Tensor) -> Tensor:
    if name == "squared":
        return 0.5 * (implicit - given).square()
    return _bernoulli_kl(implicit, given) if name == "forward_kl" else _bernoulli_kl(given, implicit)


def _bernoulli_kl(a: Tensor, b: Tensor) -> Tensor:
    """KL(Bernoulli(sigmoid a) || Bernoulli(sigmoid b)) in nats."""
    heads = a.sigmoid() * (logsigmoid(a) - logsigmoid(b))
    return heads + (-a).sigmoid() * (logsigmoid(-a) - logsigmoid(-b))

"""REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024), for tokens and denoising steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.objectives import _advantages, _policy_gradient
from upturn.objectives._group_rewards import judge
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Rloo(Objective):
    """RLOO: a row is one action, its baseline the mean reward of the other candidates of its prompt.

    R_i = r_i - beta sum_t (log previous - log ref)_it             KL inside the reward, k1 estimate
    A_i = R_i - mean_{j != i} R_j                                  (Kool et al. 2019)
    loss_i = -min(rho_i A_i, clip(rho_i, 1 - clip, 1 + clip) A_i),  rho_i = exp sum_t (log pi - log previous)_it

    *Previous* is the policy when the rollout was drawn; at the first step after that rho is 1, and the gradient is the
    paper's, -A_i grad log pi. The clip is TRL's: it matters from the second step on one rollout. Its optimum is
    p_ref e^{r / beta}. The ratio is of a whole row, so a row's actions must come in one call; over many
    actions of many dimensions (diffusion) it moves fast: take one step a rollout there, or use grpo or ppo.
    Batch: ``given["rewards"]`` (E, K), K >= 2; a reward that is NaN weighs nothing, nor does a candidate alone.
    The log-probs are of the actions of a rollout, which are exact whatever the model's likelihood is.
    """

    beta: float = 0.05  # reward a nat of KL; TRL 1.16
    clip: float = 0.2  # Schulman et al. 2017, section 6.1

    example: ClassVar[str] = "rollout"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})
    before: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})

    def __post_init__(self) -> None:
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")
        if not 0 < self.clip < 1:
            raise ValueError(f"clip must lie between 0 and 1, got {self.clip}")

    def prepare(self, batch: Batch) -> Batch:
        judged = judge(batch, "rloo", company=2, dtype=batch["before_log_probs"].dtype)
        kl = _policy_gradient.kl_of_rows(batch).reshape(-1, batch.candidates)
        advantages = _advantages.leave_one_out(judged.rewards - self.beta * kl, judged.counts)
        return batch.with_given(advantages=advantages, row_weights=judged.row_weights(batch), **judged.shares())

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        weight, advantages = batch.given["row_weights"].reshape(-1), batch.given["advantages"].reshape(-1)
        moved = _policy_gradient.log_ratio(out.log_probs, batch["before_log_probs"], out.mask)
        ratio = _policy_gradient.exponential(moved.sum(dim=1))
        losses, held = _policy_gradient.clipped_loss(ratio, advantages, self.clip, self.clip)
        ref = batch["before_ref_log_probs"]
        rows = ratio.detach()[:, None]
        metrics = _policy_gradient.report(out, batch, weight, rows, torch.ones_like(rows), ref)
        metrics["clipped"] = (weight * held).sum()
        return Loss((weight * losses).sum(), weight.sum(), metrics)

"""What the policy-gradient objectives share: ratios, clipping, estimators of KL, and what they report.

Shapes: N rows of T actions (tokens, or denoising steps), ``mask`` (N, T). All log-probs are in nats. The *previous*
policy is the trainer's own forward pass when the rollout was drawn ("before_log_probs"), not what the sampler reported
("behaviour"): the two differ by kernels and precision, and that difference is reported as ``drift``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from upturn.types import Batch, Outputs

_FARTHEST = 20.0  # nats


def log_ratio(log_probs: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """(N, T) log-probs less others, 0 where there is no action (whatever the value, infinities too)."""
    acts = mask > 0
    return torch.where(acts, torch.where(acts, log_probs, 0.0) - torch.where(acts, other, 0.0), 0.0)


def exponential(moved: Tensor) -> Tensor:
    """e^moved, level from e^20 on: a ratio that large is a policy gone astray, and infinity would be a gradient of NaN.

    Denoising steps of many dimensions get there in a few steps of training on one draw.
    """
    return moved.clamp(max=_FARTHEST).exp()


def k3(log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor) -> Tensor:
    """(N, T) e^d - d - 1 with d = log ref - log pi: never negative, unbiased for KL(pi || ref) where pi acted.

    Schulman 2020, "Approximating KL divergence"; Shao et al. 2024, eq. 4. 0 where there is no action.
    """
    gap = log_ratio(ref_log_probs, log_probs, mask)
    return exponential(gap) - gap - 1


def clipped_loss(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A) (Schulman et al. 2017, eq. 7), and where the clip holds it."""
    loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    held = ((ratio < 1 - low) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
    return loss, held


def kl_of_rows(batch: Batch) -> Tensor:
    """(N,) sum over actions of log previous - log ref: the k1 estimate of a row's KL, unbiased, of either sign."""
    return log_ratio(batch["before_log_probs"], batch["before_ref_log_probs"], batch["before_mask"]).sum(dim=1)


def row_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) mean over a row's actions; 0 for a row without any."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


@torch.no_grad()
def report(
    out: Outputs, batch: Batch, weight: Tensor, ratio: Tensor, counted: Tensor, ref_log_probs: Tensor
) -> dict[str, Tensor]:
    """Sums over the rows' ``weight`` (N,), for ``ratio`` (N, A) of new to previous policy where ``counted`` (N, A).

    ratio        mean over a row's actions;  ratio_max: the largest of a group, averaged over groups
    kl, kl_k3    of a row, previous policy to reference: two estimates, k1 and k3; far apart, the ratio is heavy-tailed
    drift        mean |sampler's - trainer's log-prob| of an action, at equal weights
    reward       mean;  zero_spread, unscored: shares of the batch drawn
    """
    old, mask, groups = batch["before_log_probs"], out.mask, (-1, batch.candidates)
    largest = torch.where((counted > 0) & (weight[:, None] > 0), ratio, 0.0).amax(dim=1).reshape(groups).amax(dim=1)
    of_group = weight.reshape(groups).sum(dim=1)
    drift = log_ratio(batch["behaviour"], old, mask).abs()
    sums = {
        "ratio": row_mean(ratio, counted),
        "kl": log_ratio(old, ref_log_probs, mask).sum(dim=1),
        "kl_k3": k3(old, ref_log_probs, mask).sum(dim=1),
        "drift": row_mean(drift, mask),
        "reward": batch.given["rewards"].nan_to_num(nan=0.0).reshape(-1),
    }
    of_groups = {"ratio_max": largest, **{name: batch.given[name] for name in ("zero_spread", "unscored")}}
    return {name: (weight * value).sum() for name, value in sums.items()} | {
        name: (of_group * value).sum() for name, value in of_groups.items()
    }


def per_action(weights: Tensor, lengths: Tensor) -> Tensor:
    """Like ``weights``: one over the mean number of actions of a row of the whole batch.

    A row's sum times this, averaged over rows, is the mean over all actions; rows stay the unit of every weight.
    """
    total = (weights * lengths).sum()
    return torch.where(total > 0, weights.sum() / total.clamp(min=1e-12), 1.0).to(weights.dtype).expand(weights.shape)

"""Likelihood weighted by a function of reward: exponential, threshold or rank; for exact log-probs and surrogates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from upturn.objectives import _weightings
from upturn.objectives._group_rewards import judge
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs

_FIELD = {"exponential": "beta", "threshold": "threshold", "rank": "best"}  # what each weighting reads


@dataclass(frozen=True)
class RewardWeighted(Objective):
    """Weighted likelihood of a group's candidates: sum_k w_k (-log p(x_k)) over sum_k w_k dims, nats a dimension.

    exponential  w_k = e^{r_k / beta} / sum_j e^{r_j / beta}, within the group: self-normalised importance sampling
                 from the policy that drew it to p* = p_0 e^{r / beta} / Z, the optimum of E r - beta KL(p || p_0);
                 maximising the weighted likelihood projects p* on the model (Peters & Schaal 2007; AWR, Peng et al.
                 2019, where the group's normaliser stands for the baseline and for the cap on weights). Biased by
                 O(1/K): its expectation is exactly one curation by softmax(r / beta) among K (Ferbach et al. 2024).
                 Every prompt weighs the same. Turn after turn from fresh samples, p_t = p_0 e^{t r / beta}.
                 ``beta``, in units of reward, is 1 by default.
    threshold    w_k = 1 where r_k > ``threshold`` (ReST, Gulcehre et al. 2023; ReST-EM, Singh et al. 2023: right or
                 wrong, threshold 0.5). A prompt weighs by how many pass.
    rank         by place in the group alone, whatever the scale of rewards: log(m + 1/2) - log place for the m best
                 (Hansen 2016, "The CMA evolution strategy", eq. 49), m the share ``best`` of the group, 1/2 unless
                 said (ibid.); a small share keeps only the best (RAFT, Dong et al. 2023). Ties share.

    ``given["rewards"]`` (E, K): NaN weighs nothing; nor does a candidate alone, save under a threshold.
    """

    weighting: Literal["exponential", "threshold", "rank"] = "exponential"
    beta: float | None = None
    threshold: float | None = None
    best: float | None = None

    example: ClassVar[str] = "group"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def __post_init__(self) -> None:
        for weighting, name in _FIELD.items():
            if getattr(self, name) is not None and weighting != self.weighting:
                raise ValueError(f"{name} belongs to weighting '{weighting}', and this is '{self.weighting}'")
        if self.weighting == "threshold" and self.threshold is None:
            raise ValueError("weighting 'threshold' needs threshold, in units of reward")
        if self.beta is not None and self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")
        if self.best is not None and not 0 < self.best <= 1:
            raise ValueError(f"best is a share of the group, above 0 and up to 1; got {self.best}")

    def prepare(self, batch: Batch) -> Batch:
        company = 1 if self.weighting == "threshold" else 2
        judged = judge(batch, "reward_weighted", company=company)
        if self.weighting == "exponential":
            weights = _weightings.exponential(judged.rewards, judged.counts, self.beta or 1.0)
        elif self.weighting == "rank":
            weights = _weightings.rank(judged.rewards, judged.counts, self.best or 0.5)
        else:
            assert self.threshold is not None
            weights = _weightings.threshold(judged.rewards, judged.counts, self.threshold)
        silent = (weights.sum(dim=1) == 0).to(weights.dtype).mean().expand(len(weights))
        row_weights = weights * judged.row_weights(batch)
        return batch.with_given(row_weights=row_weights, silent=silent, **judged.shares())

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        weights = batch.given["row_weights"].to(out.log_probs.dtype)
        groups = weights.shape
        covered = weights * (out.mask.sum(dim=1) * (out.dims / out.draws)).reshape(groups)
        loss = -(weights.reshape(-1) * out.totals()).sum()
        with torch.no_grad():
            share = weights / weights.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
            of_group = covered.sum(dim=1)
            effective = torch.where(of_group > 0, 1 / share.square().sum(dim=1).clamp(min=1e-12), 0.0)
            metrics = {"effective": (of_group * effective).sum()}
            metrics["reward"] = (covered * batch.given["rewards"].nan_to_num(nan=0.0)).sum()
            for name in ("zero_spread", "unscored", "silent"):
                metrics[name] = (of_group * batch.given[name]).sum()
        return Loss(loss, covered.sum(), metrics)

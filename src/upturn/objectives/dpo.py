"""Direct preference optimisation (Rafailov et al. 2023, eq. 7), for text and diffusion alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import logsigmoid

from upturn.errors import UserError
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Dpo:
    """DPO on pairs: -log sigmoid(beta [(log pi - log ref)(chosen) - (log pi - log ref)(rejected)]).

    With a diffusion model the log-probs are surrogates at a time and noise shared by policy, reference and both
    candidates: then it is Diffusion-DPO (Wallace et al. 2023, eq. 14), beta taking the place of beta T.
    ``given["ranks"]`` (E, 2): 1 is best; a tie, or a pair of which nothing is said, weighs nothing and is counted.
    ``label_smoothing`` is the share of labels believed wrong (conservative DPO, Mitchell 2023, eq. 3).
    """

    beta: float = 0.1  # Rafailov et al. 2023, section 6
    label_smoothing: float = 0.0

    example: ClassVar[str] = "group"
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must lie in [0, 0.5), got {self.label_smoothing}")

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates != 2:
            raise UserError(f"dpo trains on pairs, got groups of {batch.candidates}")
        return batch

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        assert out.ref_log_probs is not None
        ranks = batch.given["ranks"]
        said = ((ranks > 0).all(dim=1) & (ranks[:, 0] != ranks[:, 1])).to(out.log_probs.dtype)
        weight = said * batch.given["weights"] if "weights" in batch.given else said
        rewards = self.beta * (out.totals() - out.totals(out.ref_log_probs)).reshape(-1, 2)
        sign = torch.where(ranks[:, 0] < ranks[:, 1], 1.0, -1.0).to(rewards.dtype)
        margin = sign * (rewards[:, 0] - rewards[:, 1])
        smooth = self.label_smoothing
        losses = -(1 - smooth) * logsigmoid(margin) - smooth * logsigmoid(-margin)
        first = sign > 0
        with torch.no_grad():
            metrics = {
                "accuracy": (weight * (margin > 0)).sum(),
                "margin": (weight * margin).sum(),
                "chosen_reward": (weight * torch.where(first, rewards[:, 0], rewards[:, 1])).sum(),
                "rejected_reward": (weight * torch.where(first, rewards[:, 1], rewards[:, 0])).sum(),
            }
        return Loss((weight * losses).sum(), weight.sum(), metrics)

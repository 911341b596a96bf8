"""Kahneman–Tversky optimisation (Ethayarajh et al. 2024, eq. 8): single completions, each labelled good or bad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.objectives._pairs import log_ratios
from upturn.objectives._rows import example_weights, present
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs, Ragged, Stacks


@dataclass(frozen=True)
class Kto(Objective):
    """KTO on labels: w (1 - sigmoid(± beta (log pi - log ref - z))), + and desirable_weight for desirable ones.

    Ethayarajh et al. 2024, equation 8. z >= 0, the reference point, estimates KL(pi || ref): the mean log-ratio of
    unrelated completions, over the global batch and without gradient.

    An example is two rows: the completion, and an unrelated one (another example's) of the same prompt.
    ``given["ranks"]`` (E, 2) is (1, 0) for desirable and (2, 0) for undesirable; (0, 0) says nothing and is counted.
    :meth:`prepare` turns the second rows into ``given["z"]`` and drops them.
    """

    beta: float = 0.1  # TRL's
    desirable_weight: float = 1.0  # the paper: so that weight x count of the two is in a ratio of 1 to 4/3, eq. 9
    undesirable_weight: float = 1.0

    example: ClassVar[str] = "group"
    candidates: ClassVar[int] = 2
    unrelated: ClassVar[bool] = True  # the second row is another example's completion
    before: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    inputs: ClassVar[frozenset[str]] = frozenset({"log_probs", "ref_log_probs"})
    accepts: ClassVar[frozenset[str]] = frozenset({"exact", "elbo", "surrogate"})

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta must be above 0, got {self.beta}")
        if self.desirable_weight < 0 or self.undesirable_weight < 0:
            raise ValueError("desirable_weight and undesirable_weight cannot be negative")

    def prepare(self, batch: Batch) -> Batch:
        """Only the labelled rows, with z (E,) and, for the metrics, "share" (E,): that of each label in the weight."""
        if batch.candidates != 2:
            raise UserError(
                f"kto needs each completion with an unrelated one after it, got groups of {batch.candidates}"
            )
        policy, reference, mask = (batch[f"before_{name}"] for name in ("log_probs", "ref_log_probs", "mask"))
        ratios = ((policy - reference) * mask).sum(dim=1)[1::2]
        there = present(batch)[:, 1]
        point = (torch.where(there, ratios, 0.0).sum() / there.sum().clamp_min(1)).clamp_min(0)
        columns = {name: c[::2] for name, c in batch.columns.items() if not isinstance(c, Ragged | Stacks)}
        given = {name: value for name, value in batch.given.items() if name != "present"}
        label = batch.given["ranks"][:, 0]
        weights = example_weights(batch, label > 0, ratios.dtype)
        desirable = weights[label == 1].sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)
        given |= {"z": point.expand(len(label)), "share": torch.where(label == 1, desirable, 1 - desirable)}
        return Batch(columns, 1, given)

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        label = batch.given["ranks"][:, 0]
        good, says = label == 1, label > 0
        rewards = self.beta * log_ratios(out)
        point = self.beta * batch.given["z"].to(rewards.dtype)
        margin = torch.where(good, rewards - point, point - rewards)
        factor = torch.where(good, self.desirable_weight, self.undesirable_weight).to(rewards.dtype)
        weight = example_weights(batch, says, rewards.dtype)
        metrics = _metrics(rewards, out.totals(), margin, weight, batch, good)
        metrics["said_nothing"] = (~says).sum().to(weight.dtype)
        return Loss((weight * factor * (-margin).sigmoid()).sum(), weight.sum(), metrics)


@torch.no_grad()
def _metrics(
    rewards: Tensor, totals: Tensor, margin: Tensor, weight: Tensor, batch: Batch, good: Tensor
) -> dict[str, Tensor]:
    """Those of one label are divided by its share, so that over the global weight they are means over that label."""
    apart = weight / batch.given["share"].to(weight.dtype).clamp_min(torch.finfo(weight.dtype).tiny)
    chosen, rejected = torch.where(good, apart, 0.0), torch.where(good, 0.0, apart)
    return {
        "accuracy": (weight * (margin > 0)).sum(),
        "kl": (weight * batch.given["z"].to(weight.dtype)).sum(),
        "margin": ((chosen - rejected) * rewards).sum(),
        "chosen_reward": (chosen * rewards).sum(),
        "rejected_reward": (rejected * rewards).sum(),
        "chosen_log_prob": (chosen * totals).sum(),
        "rejected_log_prob": (rejected * totals).sum(),
    }

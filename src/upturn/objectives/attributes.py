"""Reward models from several attributes of single samples, by regression (HelpSteer)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from upturn.errors import UserError
from upturn.protocols import Objective
from upturn.types import Batch, Loss, Outputs


@dataclass(frozen=True)
class Attributes(Objective):
    """Squared error of each attribute that a sample states, their mean over a sample (Wang et al. 2024, HelpSteer2).

    The model names the attributes and their weights in the reward ('attributes: {helpfulness: 1.0, verbosity: -0.3}');
    its head gives ``logits`` (N, A), the data the column "attributes" (N, A), NaN where unsaid. A sample that states
    none weighs nothing and is counted as "said_nothing". "absolute_error" is in the attributes' own unit. With the one
    attribute "score" it is the regression of an absolute score.
    """

    example: ClassVar[str] = "sample"
    inputs: ClassVar[frozenset[str]] = frozenset({"logits"})
    accepts: ClassVar[frozenset[str]] = frozenset({"reward"})

    def prepare(self, batch: Batch) -> Batch:
        if batch.candidates != 1:
            raise UserError(f"'attributes' trains on single samples, got groups of {batch.candidates}",
                            where="objective")
        if "attributes" not in batch.columns:
            raise UserError(
                "'attributes' regresses attributes, and the model has none", where="objective",
                fix="Name them in the model: 'attributes: {helpfulness: 1.0}', each a column of the data.",
            )
        return batch

    def __call__(self, out: Outputs, batch: Batch) -> Loss:
        assert out.logits is not None
        target = batch["attributes"].to(out.logits.dtype)
        known = target.isfinite()
        error = torch.where(known, out.logits - target.nan_to_num(), 0.0)
        count = known.sum(dim=1).clamp_min(1)
        weight = known.any(dim=1).to(error.dtype)
        silent = (weight == 0).sum().to(error.dtype)
        if "weights" in batch.given:
            weight = weight * batch.given["weights"].to(error.dtype)
        with torch.no_grad():
            metrics = {"absolute_error": (weight * error.abs().sum(dim=1) / count).sum(), "said_nothing": silent}
        return Loss((weight * error.square().sum(dim=1) / count).sum(), weight.sum(), metrics)

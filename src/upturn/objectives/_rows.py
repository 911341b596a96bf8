"""Small facts about the rows of a batch that offline objectives share."""

from __future__ import annotations

import torch
from torch import Tensor

from upturn.types import Batch, Outputs


def lengths(out: Outputs) -> Tensor:
    """(N,) tokens that count in each row; dimensions, where a log-prob covers several. At least 1."""
    return (out.mask.sum(dim=1) * (out.dims / out.draws)).clamp_min(1)


def present(batch: Batch) -> Tensor:
    """(E, K) bool; True for all where the batch does not say."""
    if "present" in batch.given:
        return batch.given["present"].bool()
    any_row = next(iter(batch.given.values()))
    return torch.ones(len(any_row), batch.candidates, dtype=torch.bool, device=any_row.device)


def example_weights(batch: Batch, says: Tensor, dtype: torch.dtype) -> Tensor:
    """(E,) weight times strength, 0 where an example ``says`` (E,) nothing."""
    weights = says.to(dtype)
    for name in ("weights", "strength"):
        if name in batch.given:
            weights = weights * torch.where(says, batch.given[name].to(dtype), 0.0)
    return weights

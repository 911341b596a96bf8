"""Attributes of a reward model: their weighted sum is the reward, and samples provide their values."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.types import Samples


def check(attributes: Mapping[str, float]) -> None:
    """ValueError where no weight counts."""
    if attributes and not any(attributes.values()):
        raise ValueError("attributes: at least one weight must not be 0, or the reward is always 0")
    wrong = [name for name, weight in attributes.items() if not math.isfinite(weight)]
    if wrong:
        raise ValueError(f"attributes: the weight of '{wrong[0]}' is not finite")


def column(samples: Samples, attributes: Mapping[str, float]) -> dict[str, Tensor]:
    """{"attributes": (N, A) float32}, NaN where a sample, or the whole data, does not state it; {} without any."""
    if not attributes:
        return {}
    absent = np.full(len(samples), np.nan)
    found = [np.asarray(samples.fields.get(name, absent), dtype=np.float32) for name in attributes]
    return {"attributes": torch.from_numpy(np.stack(found, axis=1))}


def reward(outputs: Tensor, attributes: Mapping[str, float]) -> Tensor:
    """(N,) the head's one output, or the weighted sum of its (N, A)."""
    if not attributes:
        return outputs[:, 0]
    weights = torch.tensor(list(attributes.values()), dtype=outputs.dtype, device=outputs.device)
    return outputs @ weights


def same(saved: object, attributes: Mapping[str, float]) -> None:
    """UserError where weights were saved for other attributes; the weights in the reward may have changed."""
    if saved != list(attributes):
        raise UserError(
            f"was trained with the attributes {saved}, and the recipe has {list(attributes)}",
            where="model.attributes", fix="Name the same attributes, in the same order.",
        )

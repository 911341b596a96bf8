"""Outputs of a model for samples, in chunks that bound memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Trainable
from upturn.types import Array, Batch, Ragged, Samples

if TYPE_CHECKING:
    import torch

_DOCUMENTS = 64  # texts in one forward pass that gives a log-prob a token
_CHUNK = 512  # samples in one forward pass: the trainer's own size for held-out losses


def forwarded(model: Trainable, name: str, samples: Samples, column: Literal["features", "logits", "rewards"]) -> Array:
    """(N, D) float32: that column of the model's ``Outputs``, in evaluation mode, without gradients.

    Rows of uneven length are taken in order of length and put back. Raises UserError where the model has no such
    output.
    """
    import torch

    batch = model.encode(samples)
    lengths = batch.lengths
    order = torch.arange(len(batch)) if lengths is None else lengths.argsort(stable=True)
    device = next(model.module.parameters()).device
    parts: list[Array] = []
    training = model.module.training
    model.module.eval()
    try:
        with torch.no_grad():
            for rows in torch.split(order, _CHUNK):
                part = batch.take(rows)
                found = getattr(model.forward(part.to(device), model.draw(part, 0, 0)), column)
                if found is None:
                    raise UserError(
                        f"the model '{name}' has no {column}", where=f"model: {name}",
                        fix="Name a model that has them, such as a 'classifier'.",
                    )
                parts.append(found.float().cpu().numpy())
    finally:
        model.module.train(training)
    joined = np.concatenate(parts)
    out = np.empty_like(joined)
    out[order.numpy()] = joined
    return out


def learned_rows(examples: Batch) -> torch.Tensor:
    """(N,) bool: rows in which something is learned. A text that is too long may have been dropped: its mask is 0."""
    import torch

    mask = examples.columns.get("mask")
    if not isinstance(mask, Ragged):
        return torch.ones(examples.rows, dtype=torch.bool)
    return mask.sums > 0


def log_likelihoods(model: Trainable, samples: Samples) -> tuple[Array, Array]:
    """(N,) sums of a model's exact log-probs in nats, and (N,) how many (tokens; 1 of a point) each sums."""
    import torch

    examples = model.encode(samples)
    lengths = examples.lengths
    order = torch.arange(len(examples)) if lengths is None else lengths.argsort(stable=True)
    order = order[learned_rows(examples)[order]]
    totals, counts = torch.zeros(len(examples), dtype=torch.float64), torch.zeros(len(examples), dtype=torch.int64)
    device = next(model.module.parameters()).device
    was_training = model.module.training
    model.module.eval()
    try:
        with torch.no_grad():
            for rows in torch.split(order, _DOCUMENTS) if len(order) else ():
                out = model.forward(examples.take(rows).to(device), None)
                totals[rows] = (out.log_probs * out.mask).double().sum(dim=1).cpu()
                counts[rows] = out.mask.sum(dim=1).long().cpu()
    finally:
        model.module.train(was_training)
    return totals.numpy(), counts.numpy()

"""What a model says of samples, in chunks that bound memory."""

from __future__ import annotations

from typing import Literal

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Trainable
from upturn.types import Array, Samples

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

"""The held-out loss of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from upturn.training.packing import consecutive, tokens_of
from upturn.training.setup import TrainingSetup
from upturn.training.state import TrainingState
from upturn.types import Batch, Outputs

_CHUNK = 512  # examples in one forward pass


@torch.no_grad()
def held_out_loss(
    setup: TrainingSetup, state: TrainingState, held_out: Batch,
    outputs: Callable[[Batch, int, int], tuple[Outputs, Batch]],
) -> float:
    """Of the model as it would be sampled (EMA), with the same noise and times at every call.

    ``outputs`` runs the examples of a micro-batch, by the key and the place of its first example.
    """
    total, weight = 0.0, 0.0
    module = state.model.module
    module.eval()
    with state.sampled_weights():
        for start, rows in _parts(held_out, setup.spec.pack_tokens):
            out, chunk = outputs(held_out.take(rows), setup.key, start)
            loss = setup.objective(out, chunk)
            total, weight = total + float(loss.sum), weight + float(loss.weight)
    module.train()
    return total / max(weight, 1e-12)


def _parts(held_out: Batch, limit: int | None) -> Iterable[tuple[int, torch.Tensor]]:
    """(place of the first, which examples) of the parts that go through the model at once."""
    if limit is None:
        return held_out.parts(_CHUNK)
    parts = consecutive(tokens_of(held_out), torch.arange(len(held_out)), limit)
    return [(int(part[0]), part) for part in parts]

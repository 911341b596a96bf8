"""What one forward pass of a training reads: bytes of weights, tokens, operations."""

from __future__ import annotations

from upturn.config.schema import Training
from upturn.protocols import Trainable
from upturn.training.feeds import Feed
from upturn.types import Batch

TIMED_BATCHES = 4  # batches of examples that steps are timed on


def bytes_of(model: Trainable) -> float:
    """Of its weights."""
    return float(sum(p.numel() * p.element_size() for p in model.module.parameters()))


def flops_of_a_batch(model: Trainable, feed: Feed) -> float:
    """Of a forward pass over a batch, with its padding; the mean of a few."""
    count = min(TIMED_BATCHES, feed.steps_per_epoch)
    return sum(model.flops(feed.batch(i)) for i in range(count)) / count


def largest_pass(examples: Batch, spec: Training) -> int:
    """Tokens in the largest forward pass, padding counted; rows where the examples are no texts."""
    if spec.pack_tokens is not None:
        return spec.pack_tokens
    rows = min(spec.micro_batch or spec.batch_size, len(examples)) * examples.candidates
    return rows * (1 if examples.lengths is None else int(examples.lengths.max()))

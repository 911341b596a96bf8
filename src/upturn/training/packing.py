"""Packing: rows of uneven length go through the model as one sequence of up to so many tokens, without padding.

The model attends within each row alone (``types.PACKED``), and objectives see rows as ever: losses and gradients are
those of padded rows within rounding, whatever the number of tokens.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from upturn import seeds
from upturn.config.schema import Training
from upturn.errors import UserError
from upturn.protocols import Trainable
from upturn.training.feeds import Feed, FixedFeed, OnlineFeed
from upturn.training.setup import TrainingSetup
from upturn.types import PACKED, Batch, Ragged


@dataclass(frozen=True, eq=False)
class PackedFeed(FixedFeed):
    """A fixed set in an order that is random in each epoch: no buckets, because packed rows need no padding."""

    pack_tokens: int = 0

    def in_parts(self, order: torch.Tensor) -> Sequence[torch.Tensor]:
        """As many of ``order`` at once as ``pack_tokens`` allow."""
        return consecutive(tokens_of(self.examples)[order], order, self.pack_tokens)

    @lru_cache(maxsize=2)  # noqa: B019 - a feed lives as long as its stage
    def _order(self, epoch: int) -> tuple[torch.Tensor, ...]:
        rng = seeds.generator(int(seeds.fold(self.key, epoch)[0]))
        return torch.split(torch.from_numpy(rng.permutation(len(self.examples))), self.batch_size)


def packed(setup: TrainingSetup, model: Trainable) -> TrainingSetup:
    """The same training with packed rows; itself where the recipe does not pack.

    Raises UserError where the model cannot read packed rows.
    """
    limit = setup.spec.pack_tokens
    if limit is None:
        return setup
    refusal = model.refuses_packing()
    if refusal:
        raise UserError(f"'{model.name}' cannot pack rows: {refusal}", where=f"{setup.where}, pack_tokens",
                        fix="Leave pack_tokens out: rows are then batched by length.")
    feed: Feed = setup.feed
    if isinstance(feed, FixedFeed):
        feed = PackedFeed(with_lengths(feed.examples), feed.batch_size, feed.key, limit)
    elif isinstance(feed, OnlineFeed):
        draw, passes = feed.draw, feed.passes
        feed = OnlineFeed(lambda number: with_lengths(draw(number)), feed.prompts, feed.batch_size, passes, feed.key)
    held_out = None if setup.held_out is None else with_lengths(setup.held_out)
    return replace(setup, feed=feed, held_out=held_out)


def with_lengths(examples: Batch) -> Batch:
    """The same with the column ``PACKED``: the tokens of each row."""
    column = next((each for each in examples.columns.values() if isinstance(each, Ragged)), None)
    return examples if column is None else examples.with_columns(**{PACKED: column.lengths})


def tokens_of(batch: Batch) -> torch.Tensor:
    """(E,) tokens of all rows of each example of a batch with the column ``PACKED``."""
    return batch[PACKED].reshape(len(batch), -1).sum(dim=1)


def micro_batches(batch: Batch, examples: range, spec: Training) -> Iterator[torch.Tensor]:
    """These examples of a batch in the parts that go through the model at once."""
    if spec.pack_tokens is not None and PACKED in batch.columns and len(examples):
        tokens = tokens_of(batch)[examples.start : examples.stop].tolist()
        yield from (torch.tensor(part) + examples.start for part in bins(tokens, spec.pack_tokens))
        return
    size = spec.micro_batch or max(1, len(examples))
    for start in range(examples.start, examples.stop, size):
        yield torch.arange(start, min(start + size, examples.stop))


def bins(tokens: Sequence[int], limit: int) -> list[list[int]]:
    """Places of examples of so many ``tokens`` in as few bins of ``limit`` as the rule below finds, each ascending.

    Longest first, each into the emptiest bin that is open, in as many bins as their sum needs at least, and one more
    as long as one overflows ("longest processing time", Graham 1969, section 5): bins of about equal size. An example
    longer than the limit is alone in its bin.
    """
    order = sorted(range(len(tokens)), key=lambda place: (-tokens[place], place))
    long = [[place] for place in order if tokens[place] > limit]
    rest = order[len(long) :]
    count = -(-sum(tokens[place] for place in rest) // limit)
    while rest:
        found: list[list[int]] = [[] for _ in range(count)]
        heap = [(0, which) for which in range(count)]
        for place in rest:
            size, which = heap[0]
            if size + tokens[place] > limit:
                break
            found[which].append(place)
            heapq.heapreplace(heap, (size + tokens[place], which))
        else:
            return long + [sorted(part) for part in found if part]
        count += 1
    return long


def consecutive(tokens: torch.Tensor, order: torch.Tensor, limit: int) -> list[torch.Tensor]:
    """``order`` cut where the sum of ``tokens`` would exceed ``limit``; every part has at least one."""
    parts: list[torch.Tensor] = []
    start, total = 0, 0
    for place, count in enumerate(tokens.tolist()):
        if place > start and total + count > limit:
            parts.append(order[start:place])
            start, total = place, 0
        total += count
    return [*parts, order[start:]]

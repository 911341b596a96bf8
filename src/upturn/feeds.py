"""What the trainer eats: global batches, each a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch

from upturn import seeds
from upturn.types import Array, Batch

_POOL = 50  # batches that are sorted by length together: uneven texts pad little, and the order stays random


class Feed(Protocol):
    """``batch(step)`` is the global batch of a step, counted from 0 through all epochs."""

    @property
    def steps_per_epoch(self) -> int: ...
    def batch(self, step: int) -> Batch: ...


@dataclass(frozen=True, eq=False)
class FixedFeed:
    """A fixed set of E encoded examples in a fresh order each epoch; the last batch of an epoch may be smaller.

    Ragged examples are bucketed: pools of 50 batches are sorted by length, then their batches are shuffled.
    """

    examples: Batch
    batch_size: int
    key: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def batch(self, step: int) -> Batch:
        epoch, within = divmod(step, self.steps_per_epoch)
        return self.examples.take(self._order(epoch)[within])

    @lru_cache(maxsize=2)  # noqa: B019 - a feed lives as long as its stage
    def _order(self, epoch: int) -> tuple[torch.Tensor, ...]:
        rng = seeds.generator(int(seeds.fold(self.key, epoch)[0]))
        order: Array = rng.permutation(len(self.examples))
        lengths = self.examples.lengths
        if lengths is None:
            return torch.split(torch.from_numpy(order), self.batch_size)
        pool = self.batch_size * _POOL
        batches: list[torch.Tensor] = []
        for start in range(0, len(order), pool):
            part = torch.from_numpy(order[start : start + pool])
            batches += torch.split(part[lengths[part].argsort(stable=True)], self.batch_size)
        return tuple(batches[i] for i in rng.permutation(len(batches)))

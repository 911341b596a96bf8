"""Feeds: the global batches of a training, each a function of the step, and online also of the policy at that step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import torch

from upturn import seeds
from upturn.types import Array, Batch, Ragged

_POOL = 50  # batches that are sorted by length together: little padding, and the order stays random
REFERENCE = "reference"  # the column that holds the reference's log-probs of a fixed set
Prepare = Callable[[Batch], Batch]  # the preparation of a global batch before its first step


def _unchanged(batch: Batch) -> Batch:
    return batch


class Feed(Protocol):
    """``batch(step, prepare)`` is the global batch of a step, counted from 0 through all epochs."""

    @property
    def steps_per_epoch(self) -> int: ...
    def batch(self, step: int, prepare: Prepare = ...) -> Batch: ...
    def resumable(self, step: int) -> bool:
        """Whether all batches after ``step`` steps depend on the weights at that step, and on nothing older."""
        ...


@dataclass(frozen=True, eq=False)
class FixedFeed:
    """A fixed set of E encoded examples in a fresh order each epoch; the last batch of an epoch may be smaller.

    Ragged examples are bucketed: pools of 50 batches are sorted by length, then their batches are shuffled. Of examples
    of several shapes each batch has one shape: the last batch of every shape may be smaller, and all are shuffled.
    """

    examples: Batch
    batch_size: int
    key: int

    @property
    def steps_per_epoch(self) -> int:
        shapes = self.examples.shapes
        counts = [len(self.examples)] if shapes is None else torch.bincount(shapes).tolist()
        return sum(-(-count // self.batch_size) for count in counts)

    def batch(self, step: int, prepare: Prepare = _unchanged) -> Batch:
        epoch, within = divmod(step, self.steps_per_epoch)
        return prepare(self.examples.take(self._order(epoch)[within]))

    def resumable(self, step: int) -> bool:
        return True

    def with_reference(self, log_probs: Callable[[Batch], torch.Tensor]) -> FixedFeed:
        """The same with the column "reference": ``log_probs`` (N, T) of all rows, in batches of similar length."""
        lengths = self.examples.lengths
        order = torch.arange(len(self.examples)) if lengths is None else lengths.argsort(stable=True)
        wide = torch.arange(self.examples.candidates)
        rows = (order[:, None] * self.examples.candidates + wide).reshape(-1)
        back = torch.empty_like(rows)
        back[rows] = torch.arange(len(rows))
        parts = [log_probs(self.examples.take(part)).cpu() for part in self.in_parts(order)]
        # a row of text has one log-prob fewer than tokens
        own = next((c.lengths - 1 for c in self.examples.columns.values() if isinstance(c, Ragged)), None)
        column = torch.cat(parts)[back] if own is None else _cut(parts, own[rows], back)
        return replace(self, examples=self.examples.with_columns(**{REFERENCE: column}))

    def in_parts(self, order: torch.Tensor) -> Sequence[torch.Tensor]:
        """Examples in the parts that go through the model at once without gradient."""
        return torch.split(order, self.batch_size)

    @lru_cache(maxsize=2)  # noqa: B019 - a feed lives as long as its stage
    def _order(self, epoch: int) -> tuple[torch.Tensor, ...]:
        rng = seeds.generator(int(seeds.fold(self.key, epoch)[0]))
        order: Array = rng.permutation(len(self.examples))
        lengths = self.examples.lengths
        if self.examples.shapes is not None:
            each = [part for _, part in self.examples.parts(self.batch_size, torch.from_numpy(order))]
            return tuple(each[i] for i in rng.permutation(len(each)))
        if lengths is None:
            return torch.split(torch.from_numpy(order), self.batch_size)
        pool = self.batch_size * _POOL
        batches: list[torch.Tensor] = []
        for start in range(0, len(order), pool):
            part = torch.from_numpy(order[start : start + pool])
            batches += torch.split(part[lengths[part].argsort(stable=True)], self.batch_size)
        return tuple(batches[i] for i in rng.permutation(len(batches)))


def _cut(parts: list[torch.Tensor], lengths: torch.Tensor, back: torch.Tensor) -> Ragged:
    """Padded ``parts`` (n, T) without their padding; row i of the result is row ``back[i]`` of them all together."""
    kept, start = [], 0
    for part in parts:
        inside = torch.arange(part.shape[1])[None, :] < lengths[start : start + len(part), None]
        kept.append(part[inside])
        start += len(part)
    starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))[back]
    wanted = lengths[back]
    offsets = torch.nn.functional.pad(wanted.cumsum(0), (1, 0))
    index = torch.repeat_interleave(starts - offsets[:-1], wanted) + torch.arange(int(offsets[-1]))
    return Ragged(torch.cat(kept)[index], offsets)


def steps_of_a_draw(prompts: int, batch_size: int, passes: int) -> int:
    """Optimizer steps on one set that the policy drew."""
    return passes * -(-prompts // batch_size)


@dataclass(eq=False)
class OnlineFeed:
    """Examples that the policy itself generates: ``draw(n)`` gives the n-th set, used for ``passes`` passes.

    A set is drawn with the weights at its first step, and prepared once, as a whole; an epoch is a set.
    ``prompts`` is the largest number of examples of a set.
    """

    draw: Callable[[int], Batch]
    prompts: int
    batch_size: int
    passes: int
    key: int
    _number: int = field(default=-1, init=False)
    _current: Batch = field(init=False, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        return steps_of_a_draw(self.prompts, self.batch_size, self.passes)

    def batch(self, step: int, prepare: Prepare = _unchanged) -> Batch:
        number, within = divmod(step, self.steps_per_epoch)
        if number != self._number:
            drawn = self.draw(number)
            # padded as a whole: precomputed columns have to fit every part of it, position by position
            self._current, self._number = prepare(drawn.take(torch.arange(len(drawn)))), number
        per_pass = self.steps_per_epoch // self.passes
        turn, place = divmod(within, per_pass)
        rng = seeds.generator(int(seeds.fold(int(seeds.fold(self.key, number)[0]), turn)[0]))
        order = torch.from_numpy(rng.permutation(len(self._current)))
        return self._current.take(torch.tensor_split(order, per_pass)[place])

    def resumable(self, step: int) -> bool:
        return step % self.steps_per_epoch == 0

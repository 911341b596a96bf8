"""Encoded batches, outputs of a forward pass, losses and rollouts.

Shapes: E examples of K rows each (N = E * K, example-major), T log-probs a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from upturn.types.samples import Samples

if TYPE_CHECKING:
    from torch import Tensor

PACKED = "packed_lengths"  # the column of a batch that a model reads without its padding
Likelihood = Literal["exact", "elbo", "surrogate", "reward"]  # reward: a head's output, no likelihood at all


@dataclass(frozen=True)
class Ragged:
    """Rows of uneven length: ``values`` (sum of lengths,), ``offsets`` (N + 1,)."""

    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """The length of each row."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def sums(self) -> Tensor:
        """(N,) float64: the sum of each row."""
        import torch

        return torch.nn.functional.pad(self.values.double().cumsum(0), (1, 0))[self.offsets].diff()

    def pad(self, rows: Tensor, fill: int | float = 0) -> Tensor:
        """(len(rows), longest) with ``fill`` on the right."""
        import torch

        starts, lengths = self.offsets[rows], self.lengths[rows]
        span = torch.arange(int(lengths.max()) if len(rows) else 0)
        inside = span[None, :] < lengths[:, None]
        index = torch.where(inside, starts[:, None] + span[None, :], 0)
        return torch.where(inside, self.values[index], torch.as_tensor(fill, dtype=self.values.dtype))


@dataclass(frozen=True)
class Stacks:
    """N rows in several tensors: of several shapes, or in several memory-mapped files.

    parts (n_i, *shape_i);  which, place (N,) int64: the tensor of each row, and its position there
    """

    parts: tuple[Tensor, ...]
    which: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.which)

    @cached_property
    def shapes(self) -> Tensor:
        """(N,) int64: equal where rows are of one shape."""
        import torch

        every = [part.shape[1:] for part in self.parts]
        return torch.tensor([every.index(shape) for shape in every] or [0])[self.which]

    @cached_property
    def kinds(self) -> set[int]:
        """The different numbers in ``shapes``."""
        return set(self.shapes.tolist())

    def __getitem__(self, rows: Tensor) -> Tensor:
        """(len(rows), *shape), in a tensor of its own. Raises ValueError where they are of several shapes."""
        which, place = self.which[rows], self.place[rows]
        if len(self.parts) == 1:
            return self.parts[0][place]
        used = sorted(set(which.tolist()))
        shapes = {tuple(self.parts[i].shape[1:]) for i in used}
        if len(shapes) > 1:
            raise ValueError(f"rows of several shapes cannot be one tensor: {sorted(shapes)}")
        like = self.parts[used[0] if used else 0]
        out = like.new_empty((len(rows), *like.shape[1:]))
        for i in used:
            here = (which == i).nonzero()[:, 0]
            out[here] = self.parts[i][place[here]]
        return out

    def gathered(self, rows: Tensor) -> Stacks:
        """These rows, without copying."""
        return Stacks(self.parts, self.which[rows], self.place[rows])

    @staticmethod
    def of(tensor: Tensor) -> Stacks:
        """The rows of one tensor."""
        import torch

        return Stacks((tensor,), torch.zeros(len(tensor), dtype=torch.int64), torch.arange(len(tensor)))

    @staticmethod
    def joined(stacks: Sequence[Stacks], order: Tensor | None = None) -> Stacks:
        """One after the other; then row i is row ``order[i]`` of all."""
        import torch

        starts = np.cumsum([0, *(len(some.parts) for some in stacks)])
        which = torch.cat([some.which + int(start) for some, start in zip(stacks, starts, strict=False)])
        place = torch.cat([some.place for some in stacks])
        joined = Stacks(tuple(part for some in stacks for part in some.parts), which, place)
        return joined if order is None else joined.gathered(order)


Column = Union["Tensor", Ragged, Stacks]


@dataclass(frozen=True)
class Batch:
    """Encoded examples, each of ``candidates`` rows that follow each other.

    columns  row-level, (N, ...) tensors; until a batch is taken also :class:`Ragged` or :class:`Stacks`; with the
             column ``PACKED`` (N,) int64, the length of each row, a model reads the rows as one sequence
    given    example-level, (E, ...): "weights" (E,), and of groups "ranks" (E, K) int64 (1 is best, equal is a tie,
             0 nothing was said), "rewards" (E, K) float32 (NaN where there is none), "strength" (E,), "present" (E, K)
             bool (False: the group has fewer than K candidates, and the row repeats another)
    """

    columns: Mapping[str, Column]
    candidates: int = 1
    given: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """Examples, not rows."""
        first = next(iter(self.columns.values()))
        return len(first) // self.candidates

    @property
    def rows(self) -> int:
        """Rows in all: examples times candidates."""
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]  # type: ignore[return-value]

    @property
    def shapes(self) -> Tensor | None:
        """(E,) int64, equal where first rows are of one shape; None where all are."""
        for column in self.columns.values():
            if isinstance(column, Stacks) and len(column.kinds) > 1:
                return column.shapes[:: self.candidates]
        return None

    def parts(self, size: int, order: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """All examples in parts of at most ``size``, none of two shapes: how many are in the parts before, and which.

        Within a shape they follow ``order``, (E,) int64; their own where there is none.
        """
        import torch

        order, start = torch.arange(len(self)) if order is None else order, 0
        shapes = self.shapes
        each = [order] if shapes is None else [order[shapes[order] == shape] for shape in sorted(set(shapes.tolist()))]
        for alike in each:
            for rows in torch.split(alike, size) if len(alike) else ():
                yield start, rows
                start += len(rows)

    @property
    def lengths(self) -> Tensor | None:
        """(E,) the longest row of each example where rows are ragged; None where all are equal."""
        ragged = [c.lengths for c in self.columns.values() if isinstance(c, Ragged)]
        return ragged[0].reshape(-1, self.candidates).amax(dim=1) if ragged else None

    def take(self, examples: Tensor) -> Batch:
        """These examples, ragged columns padded on the right with 0."""
        import torch

        span = torch.arange(self.candidates)
        rows = (examples[:, None] * self.candidates + span[None, :]).reshape(-1)
        columns = {name: c.pad(rows) if isinstance(c, Ragged) else c[rows] for name, c in self.columns.items()}
        return Batch(columns, self.candidates, {name: g[examples] for name, g in self.given.items()})

    def to(self, device: Any) -> Batch:
        """The same batch with its tensors on a device."""
        moved = {name: c.to(device) for name, c in self.columns.items() if not isinstance(c, Ragged | Stacks)}
        return Batch(moved, self.candidates, {name: g.to(device) for name, g in self.given.items()})

    def with_given(self, **given: Tensor) -> Batch:
        """The same batch with further entries in ``given``."""
        return replace(self, given={**self.given, **given})

    def with_columns(self, **columns: Column) -> Batch:
        """The same batch with further columns."""
        return replace(self, columns={**self.columns, **columns})


@dataclass(frozen=True)
class Draw:
    """The chance of one forward pass of a diffusion model, shared by policy, reference and all candidates of a group.

    sigma (N, T) noise levels in the coordinates x + sigma * noise;  noise (N, T, ...) standard normal.
    """

    sigma: Tensor
    noise: Tensor
    drop: Tensor | None = None  # (N,) bool: the condition is dropped (classifier-free guidance)
    latent: Tensor | None = None  # (N, ...) standard normal: the point in the posterior of an image's latents
    variant: Tensor | None = None  # (N,) in [0, 1): which of the captions of an image is read


@dataclass(frozen=True)
class Outputs:
    """The outputs of a forward pass for N rows.

    log_probs      (N, T) nats; what they mean is the model's ``likelihood``
    mask           (N, T) 1 where a log-prob counts
    dims           how many dimensions one log-prob covers: 1 for a token, d for a point or an image
    draws          how many of the T estimate the same thing (diffusion's draws of time): a row is sum / draws
    ref_log_probs  (N, T) the same under the reference, no gradient
    values         (N, T) of a value head;  rewards (N,) of a reward head
    logits         (N, C) of a classifier head;  features (N, D) of its penultimate layer
    """

    log_probs: Tensor
    mask: Tensor
    dims: int = 1
    draws: int = 1
    ref_log_probs: Tensor | None = None
    values: Tensor | None = None
    rewards: Tensor | None = None
    logits: Tensor | None = None
    features: Tensor | None = None

    def totals(self, log_probs: Tensor | None = None) -> Tensor:
        """(N,) log-prob of each whole row, of the policy or of the (N, T) given."""
        each = self.log_probs if log_probs is None else log_probs
        return (each * self.mask).sum(dim=1) / self.draws


@dataclass(frozen=True)
class Loss:
    """A summed loss and the summed weight it is to be divided by, over whatever part of a batch was seen.

    ``metrics`` are sums over the same weight. The trainer divides by the weight of the global batch.
    """

    sum: Tensor
    weight: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """Samples with all that is needed to replay how they were sampled.

    actions    (N, T, ...) tokens, or latents of the diffusion steps
    log_probs  (N, T) nats, of the policy that acted;  mask (N, T)
    state      what else replay needs: sigmas, guidance, prompts' tokens, …
    """

    samples: Samples
    actions: Tensor
    log_probs: Tensor
    mask: Tensor
    state: Mapping[str, Tensor] = field(default_factory=dict)

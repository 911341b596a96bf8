"""The values that travel through the loop: all frozen, all columnar where there are many.

Shapes: N samples (rows), E examples of K rows each (N = E * K, example-major), T log-probs a row.
A sample's content is text (``str``), an image (``(H, W, C) uint8``) or a point (``(d,) float32``).
Images of several sizes are objects, one an image: ``pictures`` makes such a column, ``by_size`` goes through it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
Kind = Literal["text", "image", "points"]
Mode = Literal["pick", "compare", "rate", "rank", "edit"]  # what people are asked to do
BEST, WORST = 10.0, 1.0  # of a rating
Likelihood = Literal["exact", "elbo", "surrogate", "reward"]  # reward: a head's output, no likelihood at all
REAL, SYNTHETIC = "real", "synthetic"


def content_id(*parts: object) -> str:
    """16 hexadecimal digits that name these parts: equal content has an equal id, on any machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):  # nearly all there are
            raw = part.encode("utf-8", "surrogatepass")  # JSON may hold half a pair
        elif isinstance(part, np.ndarray):
            raw = str(part.dtype).encode() + str(part.shape).encode() + np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            raw = part
        else:
            raw = str(part).encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


@dataclass(frozen=True)
class Prompt:
    """What goes into a model: a text, a class, both or neither (unconditional).

    ``fields`` carries what scorers and templates need and the model never sees, e.g. the answer.
    """

    text: str = ""
    label: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)

    @cached_property
    def id(self) -> str:
        return content_id(self.text, self.label, json.dumps(dict(self.fields), sort_keys=True))


@dataclass(frozen=True)
class Sample:
    """One row of :class:`Samples`."""

    id: str
    prompt: Prompt
    content: Any
    origin: str
    source: str
    group: int
    candidate: int
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Samples:
    """N samples in columns.

    kind       what the content is
    ids        (N,) str objects; ``content_id`` of source and content (real) or of model and key (synthetic)
    prompts    N prompts (the same object may stand in many rows)
    content    (N, d) float32 | (N, H, W, C) uint8 | (N,) objects (H, W, C) uint8 of several sizes | (N,) str objects
    origin     (N,) "real" or "synthetic"
    source     (N,) the source's name, or the id of the model that made it
    group      (N,) int64: rows with one number are candidates of one prompt occurrence
    candidate  (N,) int64: which of the K
    fields     further columns, each (N,): "quality", "key", "finish", …
    """

    kind: Kind
    ids: Array
    prompts: tuple[Prompt, ...]
    content: Array
    origin: Array
    source: Array
    group: Array
    candidate: Array
    fields: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.prompts)
        columns = {"ids": self.ids, "content": self.content, "origin": self.origin, "source": self.source}
        columns |= {"group": self.group, "candidate": self.candidate, **self.fields}
        wrong = {name: len(column) for name, column in columns.items() if len(column) != n}
        if wrong:
            raise ValueError(f"{n} prompts, but columns of other lengths: {wrong}")

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, row: int) -> Sample:
        extra = {name: column[row] for name, column in self.fields.items()}
        return Sample(
            str(self.ids[row]), self.prompts[row], self.content[row], str(self.origin[row]), str(self.source[row]),
            int(self.group[row]), int(self.candidate[row]), extra,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))

    @property
    def labels(self) -> Array:
        """(N,) int64 class of each prompt, -1 where it has none."""
        return np.array([-1 if p.label is None else p.label for p in self.prompts], dtype=np.int64)

    def take(self, rows: Array | Sequence[int]) -> Samples:
        """The rows named, in that order; a boolean mask keeps where it is true."""
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        return Samples(
            self.kind, self.ids[rows], tuple(self.prompts[i] for i in rows), self.content[rows], self.origin[rows],
            self.source[rows], self.group[rows], self.candidate[rows],
            {name: column[rows] for name, column in self.fields.items()},
        )

    def with_fields(self, **columns: Array) -> Samples:
        return replace(self, fields={**self.fields, **columns})


def objects(values: Sequence[Any] | Array) -> Array:
    """(N,) object array whatever the values are (numpy would make nested sequences into matrices)."""
    out = np.empty(len(values), dtype=object)
    out[:] = list(values)
    return out


def pictures(rows: Sequence[Array]) -> Array:
    """Content of images: (N, H, W, C) where all are of one size, else (N,) objects (H, W, C)."""
    if len(rows) and len({row.shape for row in rows}) == 1:
        return np.stack(list(rows))
    return _each(rows)


def _each(rows: Sequence[Array]) -> Array:
    """(N,) objects, one an image: numpy would take equal ones apart."""
    out = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out


def by_size(content: Array) -> Iterator[tuple[Array, Array]]:
    """Images of one size after the other: (n,) int64 where they stand, and (n, H, W, C) uint8."""
    if content.dtype != object:
        yield np.arange(len(content)), content
        return
    sizes: dict[tuple[int, ...], list[int]] = {}
    for row, picture in enumerate(content):
        sizes.setdefault(picture.shape, []).append(row)
    for rows in sizes.values():
        yield np.array(rows, dtype=np.int64), np.stack([content[row] for row in rows])


def joined_content(kind: Kind, parts: Sequence[Array]) -> Array:
    """One after the other; images of several sizes become objects."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if kind != "image" or len({(part.dtype, part.shape[1:]) for part in parts}) == 1:
        return np.concatenate(parts)
    return _each([picture for part in parts for picture in part])


def real_samples(
    kind: Kind, content: Array | Sequence[Any], prompts: Sequence[Prompt], source: str,
    fields: Mapping[str, Array] | None = None,
) -> Samples:
    """Samples of a source: ids from the source's name, the prompt and the content."""
    body = objects(content) if kind == "text" else np.asarray(content)
    ids = objects([content_id(source, prompt.id, row) for prompt, row in zip(prompts, body, strict=True)])
    n = len(prompts)
    return Samples(
        kind, ids, tuple(prompts), body, objects([REAL] * n), objects([source] * n),
        np.arange(n), np.zeros(n, dtype=np.int64), dict(fields or {}),
    )


def synthetic_samples(
    kind: Kind, content: Array | Sequence[Any], prompts: Sequence[Prompt], keys: Array, model: str,
    fields: Mapping[str, Array] | None = None,
) -> Samples:
    """Samples of a model for P prompts and ``keys`` (P, K): P * K rows, prompt-major.

    ``content`` has P * K rows in the same order; ids come from the model's id and the keys.
    """
    count, candidates = keys.shape
    body = objects(content) if kind == "text" else np.asarray(content)
    flat = keys.reshape(-1)
    every = tuple(prompt for prompt in prompts for _ in range(candidates))
    ids = objects([content_id(model, prompt.id, int(key)) for prompt, key in zip(every, flat, strict=True)])
    n = count * candidates
    return Samples(
        kind, ids, every, body, objects([SYNTHETIC] * n), objects([model] * n),
        np.repeat(np.arange(count), candidates), np.tile(np.arange(candidates), count),
        {"key": flat, **(fields or {})},
    )


def concatenate(parts: Sequence[Samples]) -> Samples:
    """All rows, in order, groups renumbered so that they stay apart; only the fields that all parts have."""
    shared = set.intersection(*(set(part.fields) for part in parts))
    offsets, start = [], 0
    for part in parts:
        offsets.append(part.group + start)
        start += int(part.group.max(initial=-1)) + 1
    def join(column: str) -> Array:
        return np.concatenate([getattr(part, column) for part in parts])
    return Samples(
        parts[0].kind, join("ids"), tuple(p for part in parts for p in part.prompts),
        joined_content(parts[0].kind, [part.content for part in parts]),
        join("origin"), join("source"), np.concatenate(offsets), join("candidate"),
        {name: np.concatenate([part.fields[name] for part in parts]) for name in sorted(shared)},
    )


@dataclass(frozen=True)
class Splits:
    """What a source gives: ``train``, and ``held_out`` that no training ever sees, split by content."""

    train: Samples
    held_out: Samples
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what was skipped and why, with counts; printed, never silent


@dataclass(frozen=True)
class Scores:
    """One scorer's word on N samples: ``values`` (N,) float64, NaN where it is *unscored* (neither right nor wrong)."""

    scorer: str
    values: Array
    explanations: Array | None = None

    @property
    def unscored(self) -> Array:
        return np.isnan(self.values)


@dataclass(frozen=True)
class Selection:
    """What a curator keeps of N samples: ``kept`` (N,) bool, and a reason for every one that is dropped."""

    curator: str
    kept: Array
    reasons: Array  # (N,) str objects, "" where kept

    def __post_init__(self) -> None:
        silent = [i for i in np.flatnonzero(~self.kept) if not self.reasons[i]]
        if silent:
            raise ValueError(f"{self.curator}: {len(silent)} samples dropped without a reason")


@dataclass(frozen=True)
class Groups:
    """G groups of K candidates: the one preference type. A pair is K = 2, an unpaired label K = 1.

    rows     (G, K) int64 rows of ``samples``, -1 where a group has fewer
    ranks    (G, K) int64, 1 is best, equal ranks are ties, 0 where nothing was said
    rewards  (G, K) float64, NaN where there is none
    strength (G,) float64 how sure the preference is, 1 unless said
    """

    samples: Samples
    rows: Array
    ranks: Array
    rewards: Array
    strength: Array

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Votes:
    """N answers of people in columns, what was undone left out. A row is one person's answer to one task.

    ids       (N,) str objects
    person    (N,) str objects, never a name: a pseudonym;  team (N,) the person's group, "" where none is known
    task      (N,) str objects: what was shown; answers to one task are about the same candidates
    mode      (N,) "pick" | "compare" | "rate" | "rank" | "edit" | "studio" (implicit: what was downloaded, enlarged)
    action    (N,) "said" (ranks or scores say what), "tie", "bad" (all are), "skip", "edit", "download", "upscale"
    shown     (N,) tuples of sample ids by position on the screen, the first first
    ranks     (N,) tuples of int beside ``shown``: 1 is best, equal is a tie, 0 nothing was said. A pick is its 1 alone
    scores    (N,) tuples of float beside ``shown``, NaN where there is none
    strength  (N,) float64 how much better, NaN where nothing was said
    text      (N,) str objects, "" or what the person wrote in its place
    seconds   (N,) float64 from the showing to the answer;  moment (N,) float64 seconds since 1970, UTC
    check     (N,) "" | "gold" (``right`` is known) | "repeat" (this person answered the task before)
    right     (N,) str objects, of gold tasks the sample that is known to be best, else ""
    """

    ids: Array
    person: Array
    team: Array
    task: Array
    mode: Array
    action: Array
    shown: Array
    ranks: Array
    scores: Array
    strength: Array
    text: Array
    seconds: Array
    moment: Array
    check: Array
    right: Array

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Array | Sequence[int]) -> Votes:
        """These rows; a bool mask or numbers."""
        return Votes(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


@dataclass(frozen=True)
class Mixture:
    """Exactly what is trained on: rows of ``samples`` with a weight each."""

    samples: Samples
    weights: Array  # (N,) float64


@dataclass(frozen=True)
class Ragged:
    """Rows of uneven length: ``values`` (sum of lengths,), ``offsets`` (N + 1,)."""

    values: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        return self.offsets[1:] - self.offsets[:-1]

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
    """N rows that lie in several tensors: of several shapes, or in several files that are mapped, not read.

    parts (n_i, *shape_i);  which, place (N,) int64: the tensor of each row, and where it stands there
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
        """These rows, still where they lie."""
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
        made = Stacks(tuple(part for some in stacks for part in some.parts), which, place)
        return made if order is None else made.gathered(order)


Column = Union["Tensor", Ragged, Stacks]


@dataclass(frozen=True)
class Batch:
    """Encoded examples, each of ``candidates`` rows that follow each other.

    columns  row-level, (N, ...) tensors; until a batch is taken also :class:`Ragged` or :class:`Stacks`
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
        """All examples in parts of at most ``size``, none of two shapes: how many stand in parts before, and which.

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
        """(E,) the longest row of each example where rows are ragged; None where all are alike."""
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
        moved = {name: c.to(device) for name, c in self.columns.items() if not isinstance(c, Ragged | Stacks)}
        return Batch(moved, self.candidates, {name: g.to(device) for name, g in self.given.items()})

    def with_given(self, **given: Tensor) -> Batch:
        return replace(self, given={**self.given, **given})

    def with_columns(self, **columns: Column) -> Batch:
        return replace(self, columns={**self.columns, **columns})


@dataclass(frozen=True)
class Draw:
    """The chance of one forward pass of a diffusion model, shared by policy, reference and all candidates of a group.

    sigma (N, T) noise levels in the coordinates x + sigma * noise;  noise (N, T, ...) standard normal.
    """

    sigma: Tensor
    noise: Tensor
    drop: Tensor | None = None  # (N,) bool: the condition is dropped (classifier-free guidance)
    latent: Tensor | None = None  # (N, ...) standard normal: where in the posterior of its latents a picture stands
    variant: Tensor | None = None  # (N,) in [0, 1): which of the captions of a picture is read


@dataclass(frozen=True)
class Outputs:
    """What a forward pass says of N rows.

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
    """Samples with all that is needed to replay how they were made.

    actions    (N, T, ...) tokens, or latents of the diffusion steps
    log_probs  (N, T) nats, of the policy that acted;  mask (N, T)
    state      what else replay needs: sigmas, guidance, prompts' tokens, …
    """

    samples: Samples
    actions: Tensor
    log_probs: Tensor
    mask: Tensor
    state: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """A metric's value with its interval.

    ``values`` (M,) are per evaluation sample where the metric is a mean over them: the gate pairs them.
    A metric that cannot speak gives ``value = nan`` and says why in ``note``.
    """

    value: float
    low: float
    high: float
    n: int
    values: Array | None = None
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON-ready: class shares, nearest pairs, …

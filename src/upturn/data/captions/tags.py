"""Captions as lists of tags, shuffled and with dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from upturn import seeds
from upturn.data.caption_fields import lacks, with_captions
from upturn.protocols import Caption
from upturn.types import Array, Samples

_ORDER, _DROP = 0, 1  # streams of an image's key, two for each block of tags
_BLOCK = 32  # tags whose numbers are drawn at once: of a fixed size, so that no image's depend on another's


@dataclass(frozen=True)
class Tags(Caption):
    """The tags of a column, in ``variants`` versions per image: the first as written, the others shuffled and thinned.

    Which tags a version has depends on the image and the run's seed alone; each training step reads one of them.
    An image without tags has the empty caption.

    column      of the metadata: a list of words, or text with ``separator`` between them
    shuffle     whether the order changes
    keep_first  so many at the beginning stay where they are, and are never dropped
    dropout     probability that a version lacks a tag; one that would lack all keeps its first
    variants    versions per image. Other tools draw again at each step; these are drawn once, so that their texts are
                encoded once: 8 repeat after 8 epochs on average
    """

    column: str
    separator: str = ","
    shuffle: bool = True
    keep_first: int = 0
    dropout: float = 0.0
    variants: int = 8

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout}")
        if self.keep_first < 0:
            raise ValueError(f"keep_first must be 0 or more, not {self.keep_first}")
        if self.variants < 1:
            raise ValueError(f"variants must be 1 or more, not {self.variants}")
        if not self.separator:
            raise ValueError("separator is empty")

    def caption(
        self, samples: Samples, classes: Sequence[str], folder: Path | None, key: int
    ) -> tuple[Samples, tuple[str, ...]]:
        """Tags joined by ", ". Raises UserError naming the first image without the column."""
        tags = []
        for row, prompt in enumerate(samples.prompts):
            if self.column not in prompt.fields:
                raise lacks(samples, row, self.column, prompt.fields, "captions.column")
            found = (tag.strip() for tag in prompt.fields[self.column].split(self.separator))
            tags.append([tag for tag in found if tag])
        count = 1 if self.dropout == 0.0 and not self.shuffle else self.variants
        return with_captions(samples, self._versions(tags, _keys(samples, key), count)), ()

    def _versions(self, tags: Sequence[Sequence[str]], keys: Array, count: int) -> list[tuple[str, ...]]:
        longest = max((len(own) for own in tags), default=0)
        shape = (count, max(longest, 1))
        order = _numbers(keys, shape, _ORDER) if self.shuffle else np.zeros((len(tags), *shape))
        order = np.where(np.arange(shape[1]) < self.keep_first, np.arange(shape[1]) - longest, order)
        dropped = _numbers(keys, shape, _DROP) < self.dropout
        dropped[..., : self.keep_first] = False
        out = []
        for row, own in enumerate(tags):
            here = np.argsort(order[row, :, : len(own)], axis=1, kind="stable")
            gone = dropped[row]
            versions = [", ".join(own)]
            for version in range(1, count):
                kept = [own[i] for i in here[version] if not gone[version, i]]
                versions.append(", ".join(kept or [own[i] for i in here[version][:1]]))
            out.append(tuple(versions) if len(set(versions)) > 1 else (versions[0],))
        return out


def _numbers(keys: Array, shape: tuple[int, int], stream: int) -> Array:
    """(N, versions, tags) uniform."""
    blocks = range(-(-shape[1] // _BLOCK))
    parts = [seeds.uniform(keys, (shape[0], _BLOCK), stream=2 * block + stream).numpy() for block in blocks]
    return np.concatenate(parts, axis=2)[:, :, : shape[1]]


def _keys(samples: Samples, key: int) -> Array:
    """(N,) a key for each image, independent of the other images."""
    return seeds.fold(key, np.array([int(name, 16) >> 1 for name in samples.ids], dtype=np.int64))

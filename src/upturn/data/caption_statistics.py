"""Statistics of captions: lengths, repeats and common words, before training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from upturn.data.caption_fields import CAPTIONS
from upturn.types import Samples

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
Lengths = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True)
class CaptionReader:
    """One tokenizer of the policy: lengths in tokens, special tokens included, and how many it reads."""

    name: str
    limit: int
    lengths: Lengths


@dataclass(frozen=True)
class Span:
    """Lengths of captions, the longest last."""

    least: int
    median: float
    most: int


@dataclass(frozen=True)
class Read:
    """The captions as one tokenizer reads them; ``cut`` are longer than ``limit``."""

    name: str
    limit: int
    span: Span
    cut: int


@dataclass(frozen=True)
class Statistics:
    """Counts over all captions of all images; ``common`` are (word, captions that have it), the most common first."""

    pictures: int
    captions: int
    distinct: int
    empty: int
    variants: Span  # captions per image
    words: Span
    common: tuple[tuple[str, int], ...]
    tokens: tuple[Read, ...]


def all_captions(samples: Samples) -> list[tuple[str, ...]]:
    """Every caption of each sample."""
    several = samples.fields.get(CAPTIONS)
    return [(p.text,) for p in samples.prompts] if several is None else [tuple(texts) for texts in several]


def statistics(samples: Samples, readers: Sequence[CaptionReader] = (), most: int = 15) -> Statistics:
    """Raises ValueError where there are no samples."""
    each = all_captions(samples)
    counts = Counter(text for texts in each for text in texts)
    words = {text: _WORD.findall(text.casefold()) for text in counts}
    common: Counter[str] = Counter()
    for text, found in words.items():
        for word in set(found):
            common[word] += counts[text]
    ordered = sorted(common.items(), key=lambda item: (-item[1], item[0]))[:most]
    texts, repeats = list(counts), np.array(list(counts.values()))
    read = []
    for reader in readers:
        lengths = np.asarray(reader.lengths(texts))
        cut = int(repeats[lengths > reader.limit].sum())
        read.append(Read(reader.name, reader.limit, _span(np.repeat(lengths, repeats)), cut))
    return Statistics(
        len(samples), int(repeats.sum()), len(counts), sum(n for text, n in counts.items() if not text.strip()),
        _span(np.array([len(own) for own in each])), _span(np.repeat([len(words[text]) for text in texts], repeats)),
        tuple(ordered), tuple(read),
    )


def _span(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Span:
    return Span(int(lengths.min()), float(np.median(lengths)), int(lengths.max()))

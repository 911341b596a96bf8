"""Real text as fixed-length rows of tokens, and statistics of generated rows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from upturn import seeds
from upturn.config import components
from upturn.errors import UserError
from upturn.types import Array

LENGTH = 64  # tokens of a row
HEAD = 32  # width of an attention head
_HELD_OUT = 400  # most rows: 25,600 tokens, a standard error of about 0.01 nats
_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")


class Vocabulary(NamedTuple):
    """A tokenizer's number of tokens, and the token that begins a row."""

    size: int
    begin: int


@dataclass(frozen=True)
class Passages:
    """train (M, n, LENGTH) int16, different rows for each repetition; held_out (H, LENGTH); all known words."""

    train: Array
    held_out: Array
    known: frozenset[str]
    codec: Any

    @property
    def words(self) -> Vocabulary:
        return Vocabulary(len(self.codec.tokenizer), self.codec.bos)

    def counts(self, rows: Array) -> Counter[str]:
        """Occurrences of each word in rows (n, LENGTH), without each row's first and last, which may be cut."""
        found: Counter[str] = Counter()
        for text in self.codec.decode(rows.tolist()):
            found.update(_words(text)[1:-1])
        return found


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def read(text: str, vocabulary: int, n: int, repetitions: int, seed: int) -> Passages:
    """Tokenizes the text with a tokenizer trained on it. Raises UserError where it has fewer rows than n.

    Repetitions take different rows as far as the text has enough; the order depends on the seed only.
    """
    train, held_out, known, codec = _rows(text, vocabulary)
    if n > len(train) or not len(held_out):
        raise UserError(
            f"the text has {len(train):,} rows of {LENGTH} tokens to train on and {len(held_out)} held out, and n is "
            f"{n:,}", where="lab text", fix="Lower --n, or give --text more text.",
        )
    order = seeds.generator(seeds.key("lab text rows", seed)).permutation(len(train))
    # in sequence, wrapping around at the end: as few shared rows as possible
    taken = np.arange(repetitions * n).reshape(repetitions, n) % len(train)
    return Passages(train[order[taken]], held_out, known, codec)


@cache
def _rows(text: str, vocabulary: int) -> tuple[Array, Array, frozenset[str], Any]:
    from upturn.data import tokenizers

    source = components.make("source", {"name": "corpus", "paths": [text] if text else []}, "lab text")
    splits = source.load()
    trained, held_out = ([f"{part}\n\n" for part in side.content] for side in (splits.train, splits.held_out))
    spec = {"kind": "bpe", "size": vocabulary}
    tokenizers.check(spec)
    codec, _ = tokenizers.settle(tokenizers.train(spec, trained), "lab text")
    known = frozenset(word for part in trained for word in _words(part))
    return _cut(codec, trained), _cut(codec, held_out)[:_HELD_OUT], known, codec


def _cut(codec: Any, texts: list[str]) -> Array:
    flat = np.concatenate([np.array(tokens, dtype=np.int16) for tokens in codec.encode(texts)])
    return flat[: len(flat) // LENGTH * LENGTH].reshape(-1, LENGTH)


def distinct(rows: Array, size: int) -> float:
    """Share of n-grams of tokens within rows (n, LENGTH) that are different (Li et al. 2016, distinct-n)."""
    windows = np.lib.stride_tricks.sliding_window_view(rows, size, axis=1).reshape(-1, size).astype(np.int64)
    names = windows @ (np.int64(np.iinfo(np.int16).max + 1) ** np.arange(size))
    return len(np.unique(names)) / len(names)


def keys(purpose: str, repetitions: int, seed: int, at: int) -> list[int]:
    return [seeds.key(f"lab text {purpose}", seed, repetition, at) for repetition in range(repetitions)]

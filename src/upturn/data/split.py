"""Splits data by content, never by row, and checks training data for held-out content.

A row's key names its normalised content: text without case and without differences of white space, the bytes of a
image or a point. Rows with one key are on one side. The side is a hash of the key alone, so it stays the same
when data is added, on any machine.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from upturn.errors import UserError
from upturn.types import REAL, Array, Kind, Samples, content_id, objects

_SCALE = 2.0**-64  # eight bytes of a hash -> [0, 1)
_SHOWN = 80  # characters of an example in a message


def normalised(text: str) -> str:
    """Text as it is compared: casefolded, runs of white space one space, accents composed with their letters (NFC)."""
    plain = " ".join(text.casefold().split())
    return plain if plain.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFD", plain).casefold())


def content_keys(kind: Kind, content: Array | Sequence[str]) -> Array:
    """(N,) str objects of 16 hexadecimal digits: equal where the normalised content is equal."""
    if kind == "text":
        return objects([content_id(normalised(text)) for text in content])
    return objects([content_id(row) for row in np.asarray(content)])


def shares(keys: Array | Sequence[str], seed: int = 0, purpose: str = "held out") -> Array:
    """(N,) float64 in [0, 1): a uniform number for each key, from the key alone."""
    salt = hashlib.blake2b(f"{purpose}\x1f{seed}".encode(), digest_size=16).digest()
    digests = b"".join(hashlib.blake2b(str(key).encode(), digest_size=8, key=salt).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8") * _SCALE


def split_by_content(keys: Array | Sequence[str], fraction: float, seed: int = 0) -> Array:
    """(N,) bool, true where a row is held out: about ``fraction`` of the different keys (binomial).

    Raises ValueError where ``fraction`` is not inside (0, 1).
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"the held-out fraction must lie between 0 and 1, not {fraction}")
    return np.asarray(shares(keys, seed) < fraction)


def check_leakage(
    train: Array | Sequence[str], held_out: Array | Sequence[str], *, where: str, examples: Sequence[str] | None = None
) -> None:
    """Refuse held-out keys that are in train. ``examples`` (one for each held-out key) are displayed, not the keys.

    Raises UserError with the count and one example.
    """
    known = set(train)
    both = [row for row, key in enumerate(held_out) if key in known]
    if both:
        excerpt = str(held_out[both[0]] if examples is None else examples[both[0]])[:_SHOWN]
        raise UserError(
            f"{len(both)} of {len(held_out)} held-out rows are in the training part too, e.g. {excerpt!r}",
            where=where, fix="Remove them from one of the two.",
        )


@dataclass(frozen=True)
class Leak:
    """Held-out content and prompts among synthetic training rows: counted, not refused.

    rows     synthetic rows whose content (for text: prompt and completion) is held out
    prompts  rows of text, real or synthetic, whose prompt is a held-out prompt
    """

    rows: int
    prompts: int

    @property
    def note(self) -> str:
        """One line to print, "" where there is nothing to say."""
        if not self.rows and not self.prompts:
            return ""
        return f"held out, yet trained on: {self.rows} synthetic rows by content, {self.prompts} rows by prompt"


def example_keys(samples: Samples) -> Array:
    """(N,) keys of whole examples: for text prompt and completion, else the content alone."""
    if samples.kind != "text":
        return content_keys(samples.kind, samples.content)
    pairs = zip(samples.prompts, samples.content, strict=True)
    return objects([content_id(normalised(prompt.text), normalised(text)) for prompt, text in pairs])


def assert_no_leak(samples: Samples, held_out: Samples) -> Leak:
    """Look for held-out examples in what is to be trained on.

    A real row there is refused: UserError with the count and the first id. A synthetic row there may be the model's
    own right answer: it is counted. ``samples`` and ``held_out`` must be of one kind.
    """
    if samples.kind != held_out.kind:
        raise ValueError(f"cannot compare {samples.kind} with held-out {held_out.kind}")
    known = set(example_keys(held_out))
    found = np.array([key in known for key in example_keys(samples)], dtype=bool)
    real = found & (samples.origin == REAL)
    if real.any():
        first = int(np.flatnonzero(real)[0])
        excerpt = str(samples.content[first])[:_SHOWN] if samples.kind == "text" else f"sample {samples.ids[first]}"
        raise UserError(
            f"{int(real.sum())} real rows that are to be trained on are held out, e.g. {excerpt!r}",
            where=str(samples.source[first]), fix="Train on the source's train part only.",
        )
    prompts = 0
    if samples.kind == "text":
        held_prompts = {normalised(prompt.text) for prompt in set(held_out.prompts)} - {""}
        seen = {prompt: normalised(prompt.text) in held_prompts for prompt in set(samples.prompts)}
        prompts = sum(seen[prompt] for prompt in samples.prompts)
    return Leak(rows=int((found & ~real).sum()), prompts=prompts)

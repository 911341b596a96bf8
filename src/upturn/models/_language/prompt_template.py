"""[BOS] prompt completion [EOS]: the one template, the same in training and in sampling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from upturn.data.tokenizers import Codec
from upturn.errors import UserError
from upturn.types import Array, Batch, Ragged, Samples

NAME = "[BOS] prompt completion [EOS]"


def prompt_tokens(codec: Codec, texts: Sequence[str]) -> list[list[int]]:
    """The tokens before the completion: one BOS and the prompt."""
    return [[codec.bos, *tokens] for tokens in codec.encode(texts)]


def distinct(texts: Sequence[str]) -> tuple[list[str], Array]:
    """The different texts, in order of first appearance, and (N,) which of them each text is."""
    place: dict[str, int] = {}
    index = np.fromiter((place.setdefault(text, len(place)) for text in texts), dtype=np.int64, count=len(texts))
    return list(place), index


def encode(
    codec: Codec, samples: Samples, max_length: int, truncated_at_most: float
) -> tuple[Batch, tuple[str, ...]]:
    """Ragged columns "tokens" int64 and "mask" float32, with notes that count cut completions and unknown tokens.

    The mask is 1 on the completion and its EOS (on everything after BOS where the prompt is empty). Raises UserError
    where more than ``truncated_at_most`` of the completions would be cut, or one would be cut away altogether.
    """
    texts, which = distinct([prompt.text for prompt in samples.prompts])
    prompts = prompt_tokens(codec, texts)
    completions = codec.encode([str(content) for content in samples.content])
    before = np.array([len(p) for p in prompts], dtype=np.int64)[which]
    full = before + np.fromiter(map(len, completions), dtype=np.int64, count=len(completions)) + 1
    notes = _truncation(samples, before, full, max_length, truncated_at_most)
    end = [codec.eos]
    rows = chain.from_iterable((prompts[p], c, end) for p, c in zip(which, completions, strict=True))
    values = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(full.sum()))
    at = np.arange(len(values)) - np.repeat(np.cumsum(full) - full, full)
    mask = at >= np.repeat(before, full)
    if (full > max_length).any():
        inside = at < max_length
        values, mask = values[inside], mask[inside]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(np.minimum(full, max_length))]))
    columns = {
        "tokens": Ragged(torch.from_numpy(values), offsets),
        "mask": Ragged(torch.from_numpy(mask.astype(np.float32)), offsets),
    }
    if codec.unknown is not None:
        unknown = int((values == codec.unknown).sum())
        if unknown:
            notes = (*notes, f"{unknown} of {len(values)} tokens are unknown to the tokenizer")
    return Batch(columns), notes


def _truncation(
    samples: Samples, before: Array, full: Array, max_length: int, truncated_at_most: float
) -> tuple[str, ...]:
    cut = full > max_length
    if not cut.any():
        return ()
    count, first = int(cut.sum()), int(np.flatnonzero(cut)[0])
    empty = np.flatnonzero(before >= max_length)
    if len(empty):
        row = int(empty[0])
        raise UserError(
            f"the prompt of {len(empty)} of {len(full)} samples fills all {max_length} tokens: nothing of the "
            f"completion is left to learn (the first is {samples.prompts[row].text[:60]!r}, {before[row]} tokens)",
            where="model.max_length", fix="Raise max_length, or drop the samples with such long prompts.",
        )
    message = f"{count} of {len(full)} completions are longer than {max_length} tokens with their prompt"
    if count > truncated_at_most * len(full):
        raise UserError(
            f"{message} and would be cut (the first is {str(samples.content[first])[:60]!r}; the longest has "
            f"{int(full.max())} tokens)",
            where="model.max_length",
            fix=f"Raise max_length, or allow it with truncated_at_most (now {truncated_at_most:g}).",
        )
    return (f"{message}: they were cut, without an end token",)

"""Rows of text as tokens: [BOS] prompt completion [EOS], or a conversation through the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, get_args

import numpy as np
import torch

from upturn.data.chat_template import ChatTemplate, TrainOn
from upturn.data.tokenizers import Codec
from upturn.errors import UserError
from upturn.types import COMPLETION_MESSAGES, REAL, Array, Batch, Prompt, Ragged, Samples, TokenRows
from upturn.types.conversations import completion_of

_BEFORE = "\n"  # a text before another that no token joins with it
NAME = "[BOS] prompt completion [EOS]"
TooLong = Literal["refuse", "drop", "truncate_left", "truncate_right"]
TOO_LONG = get_args(TooLong)
_UNLIMITED = 1 << 62  # tokens


@dataclass(frozen=True)
class Format:
    """How rows become tokens: see the fields of the text models. ``chat`` is None without a chat template."""

    codec: Codec
    chat: ChatTemplate | None
    train_on: TrainOn
    too_long: TooLong
    max_length: int
    truncated_at_most: float

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens before each completion: one BOS and the text, or what the chat template writes."""
        plain = iter(plain_prompt_tokens(self.codec, [prompt.text for prompt in prompts if not prompt.messages]))
        return [
            self._template().prompt(prompt.messages, prompt.tools) if prompt.messages else next(plain)
            for prompt in prompts
        ]

    def _template(self) -> ChatTemplate:
        if self.chat is None:
            raise UserError(
                "the rows are conversations, and the model's tokenizer has no chat template", where="model",
                fix="Add 'chat_template: chatml' (or another name, or a file) to the model, or use a chat model.",
            )
        return self.chat

    def encode(self, samples: Samples) -> tuple[Batch, tuple[str, ...]]:
        """Ragged columns "tokens" int64 and "mask" float32 (1 where learned), and notes.

        Of plain text the completion and its EOS are learned, of a conversation what ``train_on`` names. The notes count
        cut rows and unknown tokens. Raises UserError where a row is too long and ``too_long`` is "refuse", or where
        nothing of it would be left to learn; with "drop" its mask is 0 throughout.
        """
        chats = np.array([bool(prompt.messages) for prompt in samples.prompts], dtype=bool)
        notes: list[str] = []
        if not chats.any():
            rows, mask = self._plain(samples)
        elif chats.all():
            rows, mask = self._conversations(samples, notes)
        else:
            rows, mask = self._mixed(samples, chats, notes)
        full = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        values = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(full.sum()))
        alone = np.array([
            not content and bool(prompt.text) for prompt, content in zip(samples.prompts, samples.content, strict=True)
        ]) & (samples.origin == REAL)
        if alone.any():  # prompts without a completion: a model that ends at once is not what they show
            mask = mask & ~np.repeat(alone, full)
        values, mask, kept = self._shortened(samples, values, mask, full, notes)
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(kept)]))
        columns = {
            "tokens": Ragged(torch.from_numpy(values), offsets),
            "mask": Ragged(torch.from_numpy(mask.astype(np.float32)), offsets),
        }
        if self.codec.unknown is not None:
            unknown = int((values == self.codec.unknown).sum())
            if unknown:
                notes.append(f"{unknown} of {len(values)} tokens are unknown to the tokenizer")
        return Batch(columns), tuple(notes)

    def rows(self, samples: Samples) -> TokenRows:
        """The rows as tokens, cut as :meth:`encode` cuts them; a row that is dropped has nothing that is learned."""
        whole, notes = replace(self, max_length=_UNLIMITED).encode(samples)
        full = [len(row) for row in _lists(whole, "tokens")]
        batch = whole
        if max(full, default=0) > self.max_length:
            batch, notes = self.encode(samples)
        raw = self.codec.tokenizer.backend_tokenizer

        def spelled(token: int) -> str:
            return str(raw.decode([token], skip_special_tokens=False))

        return TokenRows(_lists(batch, "tokens"), _lists(batch, "mask"), full, self.max_length, spelled, notes)

    def _plain(self, samples: Samples) -> tuple[list[list[int]], Array]:
        texts, which = distinct([prompt.text for prompt in samples.prompts])
        prompts = plain_prompt_tokens(self.codec, texts)
        contents = [str(content) for content in samples.content]
        completions = completion_tokens(self.codec, texts, which, prompts, contents)
        rows = [[*prompts[p], *c, self.codec.eos] for p, c in zip(which, completions, strict=True)]
        full = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        before = np.fromiter(map(len, prompts), dtype=np.int64, count=len(prompts))[which]
        return rows, _places(full) >= np.repeat(before, full)

    def _conversations(self, samples: Samples, notes: list[str]) -> tuple[list[list[int]], Array]:
        turns = samples.fields.get(COMPLETION_MESSAGES)
        rows = []
        for row, (prompt, content) in enumerate(zip(samples.prompts, samples.content, strict=True)):
            completion = completion_of(str(content), "" if turns is None else turns[row])
            rows.append(((*prompt.messages, *completion), prompt.tools, len(prompt.messages)))
        encoded = self._template().encode(
            rows, self.train_on, lambda row: f"the conversation that begins {samples.prompts[row].text[:60]!r}"
        )
        crossed = sum(row.crossed for row in encoded)
        if crossed:
            notes.append(
                f"in {crossed} of {len(encoded)} conversations a token joins the end of the chat template's header and "
                "the beginning of an answer: sampling never meets it"
            )
        learned = list(chain.from_iterable(row.learned for row in encoded))
        return [row.tokens for row in encoded], np.array(learned, dtype=bool)

    def _mixed(self, samples: Samples, chats: Array, notes: list[str]) -> tuple[list[list[int]], Array]:
        rows: list[list[int]] = [[]] * len(samples)
        masks: list[Array] = [np.empty(0)] * len(samples)
        parts = ((chats, self._conversations(samples.take(chats), notes)), (~chats, self._plain(samples.take(~chats))))
        for some, (tokens, mask) in parts:
            ends = np.cumsum([len(row) for row in tokens])
            for place, row, own in zip(np.flatnonzero(some), tokens, np.split(mask, ends[:-1]), strict=True):
                rows[place], masks[place] = row, own
        return rows, np.concatenate(masks)

    def _shortened(
        self, samples: Samples, values: Array, mask: Array, full: Array, notes: list[str]
    ) -> tuple[Array, Array, Array]:
        """Tokens and mask of rows of at most ``max_length`` tokens, and the length of each."""
        limit, long = self.max_length, full > self.max_length
        if not long.any():
            return values, mask, full
        at, lengths = _places(full), np.repeat(full, full)
        inside = at >= lengths - limit if self.too_long == "truncate_left" else at < limit
        rows = np.repeat(np.arange(len(full)), full)
        left = np.bincount(rows, weights=mask & inside, minlength=len(full))
        notes.append(self._too_long(samples, full, long, left))
        if self.too_long == "drop":
            mask = mask & ~np.repeat(long, full)
        return values[inside], mask[inside], np.minimum(full, limit)

    def _too_long(self, samples: Samples, full: Array, long: Array, left: Array) -> str:
        """A note that counts the rows that are too long; UserError where they are refused."""
        count, first, limit = int(long.sum()), int(np.flatnonzero(long)[0]), self.max_length
        message = f"{count} of {len(full)} rows are longer than {limit} tokens with their prompt"
        if self.too_long == "drop":
            if count == len(full):
                raise UserError(f"{message}: nothing would be left", where="model.max_length",
                                fix="Raise max_length, or choose another 'too_long:'.")
            return f"{message}: they were dropped"
        empty = np.flatnonzero(long & (left == 0))
        if len(empty):
            row = int(empty[0])
            raise UserError(
                f"the prompt of {len(empty)} of {len(full)} samples fills all {limit} tokens: nothing of the "
                f"completion is left to learn (the first is {samples.prompts[row].text[:60]!r}, {full[row]} tokens)",
                where="model.max_length", fix="Raise max_length, or write 'too_long: drop' or 'truncate_left'.",
            )
        if self.too_long == "refuse" and count > self.truncated_at_most * len(full):
            raise UserError(
                f"{message} (the first is {str(samples.content[first])[:60]!r}; the longest has "
                f"{int(full.max())} tokens)",
                where="model.max_length",
                fix="Raise max_length, or write 'too_long: drop', 'truncate_left' or 'truncate_right', or allow a "
                    f"share to be cut on the right with truncated_at_most (now {self.truncated_at_most:g}).",
            )
        where = "at their beginning" if self.too_long == "truncate_left" else "without an end token"
        return f"{message}: they were cut, {where}"


def _lists(batch: Batch, name: str) -> list[list[int]]:
    column = batch.columns[name]
    assert isinstance(column, Ragged)
    return [part.long().tolist() for part in torch.split(column.values, column.lengths.tolist())]


def plain_prompt_tokens(codec: Codec, texts: Sequence[str]) -> list[list[int]]:
    """The tokens before the completion: one BOS and the prompt."""
    return [[codec.bos, *tokens] for tokens in codec.encode(texts)]


def completion_tokens(
    codec: Codec, texts: Sequence[str], which: Array, prompts: Sequence[Sequence[int]], contents: Sequence[str]
) -> list[list[int]]:
    """The tokens of each completion after those of its prompt: of the joint text, as a model reads it.

    Tokenized by itself, a completion would begin with a space in some tokenizers (Llama 2). Where the tokens of the
    prompt are not the first of the joint text, since a token would reach over the border, the completion is tokenized
    apart: when sampling, the prompt is all there is.
    """
    if not any(texts):
        return codec.encode(contents)
    joint = codec.encode([texts[place] + content for place, content in zip(which, contents, strict=True)])
    found: list[list[int]] = []
    apart: list[int] = []
    for row, (place, tokens) in enumerate(zip(which, joint, strict=True)):
        own = prompts[place][1:]
        fits = tokens[: len(own)] == own
        found.append(tokens[len(own) :] if fits else [])
        if not fits:
            apart.append(row)
    for row, tokens in zip(apart, _continuing(codec, [contents[row] for row in apart]), strict=True):
        found[row] = tokens
    return found


def _continuing(codec: Codec, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of texts that follow another, without the space that some tokenizers write before every text."""
    before = codec.encode([_BEFORE])[0]
    joint = codec.encode([_BEFORE + text for text in texts])
    alone = codec.encode(texts)
    size = len(before)
    return [row[size:] if row[:size] == before else own for row, own in zip(joint, alone, strict=True)]


def distinct(texts: Sequence[str]) -> tuple[list[str], Array]:
    """The different texts, in order of first appearance, and (N,) which of them each text is."""
    place: dict[str, int] = {}
    index = np.fromiter((place.setdefault(text, len(place)) for text in texts), dtype=np.int64, count=len(texts))
    return list(place), index


def distinct_prompts(prompts: Sequence[Prompt]) -> tuple[list[Prompt], Array]:
    """The same of prompts: those that a model reads alike are one."""
    place: dict[tuple[object, ...], int] = {}
    index = np.empty(len(prompts), dtype=np.int64)
    first: list[Prompt] = []
    for row, prompt in enumerate(prompts):
        index[row] = place.setdefault((prompt.text, prompt.messages, prompt.tools), len(place))
        if len(place) > len(first):
            first.append(prompt)
    return first, index


def _places(lengths: Array) -> Array:
    """The place of each token in its row, for rows of these lengths."""
    found: Array = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return found

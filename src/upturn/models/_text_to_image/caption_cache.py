"""The captions of a model, by key: their tokens and the outputs of frozen text encoders, computed once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from upturn import seeds
from upturn.adapter_layers.new_tokens import rows_of
from upturn.diffusion.joint import Read
from upturn.models._text_to_image.architectures.architecture import Family
from upturn.models._text_to_image.cache import Cache
from upturn.types import Stacks

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NONE = 0  # the key of no caption, the unconditional side of guidance


@dataclass(eq=False)
class Captions:
    """Rows of text for the denoiser. A batch holds keys of captions; their embeddings are stored here once.

    A key is the same in every model, so a batch with captions that a model has not read is an error.

    Encoders in ``frozen`` are called once per caption where ``cache`` is on, each caption alone, so that its outputs
    never depend on its batch; else at every call. ``trained`` names encoders that the denoiser's module holds:
    of them only tokens are kept. When an encoder's weights change, outputs are computed again, and noted in ``notes``.
    Captions with a token that a frozen encoder is learning are read at every call, with the gradient of its rows. With
    a ``disk_cache`` the outputs are kept on the disk, and read from there; those of captions with new tokens never are.
    """

    family: Family
    tokenizers: dict[str, Any]  # by the name of the encoder that reads the tokens
    frozen: Mapping[str, nn.Module]
    trained: frozenset[str]
    absent: Mapping[str, Tensor]  # (1, …) in the place of encoders that the pipeline has not
    cache: bool = True
    disk_cache: Cache | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._row: dict[int, int] = {}  # of each key, in the tables below
        self._texts: list[str] = []  # of each row
        self._first: Mapping[str, int] = {}  # the first id that is a new token, by encoder
        self._learned = torch.zeros(0, dtype=torch.bool)  # rows with a new token
        self._sorted = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)  # keys, and their rows
        self._tokens: dict[str, dict[str, Tensor]] = {}
        self._read: dict[str, Stacks] = {}
        self._stamp = self._weights()
        self.cut: set[str] = set()  # captions longer than an encoder reads
        self.keys([None])

    def keys(self, texts: Sequence[str | None]) -> Tensor:
        """(N,) int64; None is no caption. New captions are read."""
        every = {text: NONE if text is None else seeds.key("caption", text) for text in dict.fromkeys(texts)}
        fresh = {key: text or "" for text, key in every.items() if key not in self._row}
        if fresh:
            with torch.inference_mode(False), torch.no_grad():  # sampling may come first, and training reads them later
                self._add(list(fresh.values()))
                self._row |= {key: len(self._row) + i for i, key in enumerate(fresh)}
                known = torch.tensor(list(self._row), dtype=torch.int64)
                self._sorted = known.sort()
        return torch.tensor([every[text] for text in texts], dtype=torch.int64)

    def _rows(self, keys: Tensor) -> Tensor:
        known, rows = self._sorted
        place = torch.searchsorted(known, keys).clamp(max=len(known) - 1)
        if not torch.equal(known[place], keys):
            raise KeyError("a batch with captions that this model has never read: encode it with this model")
        return rows[place]

    def reread(self, tokenizers: dict[str, Any], first: Mapping[str, int]) -> None:
        """All captions again, by tokenizers with new tokens; ``first`` is the first new id of each that has some."""
        texts, self.tokenizers, self._first = self._texts, tokenizers, first
        self._texts, self._tokens, self._read, self._learned = [], {}, {}, self._learned[:0]
        with torch.inference_mode(False), torch.no_grad():
            self._add(texts)
        self._stamp = self._weights()

    def none_contains(self, token: str) -> bool:
        """Whether there are captions, and none contains this token."""
        return len(self._texts) > 1 and not any(token in text for text in self._texts)

    def _add(self, texts: Sequence[str]) -> None:
        start, learned = len(self._texts), torch.zeros(len(texts), dtype=torch.bool)
        self._texts = [*self._texts, *texts]
        for name, tokenizer in self.tokenizers.items():
            spelled = _spelled(tokenizer, texts)
            found = self.family.tokens(name, tokenizer, spelled)
            self._mark(tokenizer, spelled, found["ids"].shape[1])
            if name in self._first:
                learned |= (found["ids"] >= self._first[name]).any(dim=1)
            held = self._tokens.setdefault(name, {})
            for key, value in found.items():
                held[key] = torch.cat([held[key], value]) if key in held else value
        self._learned = torch.cat([self._learned, learned])
        if self.cache:
            _append(self._read, self._reads(torch.arange(start, start + len(texts))))

    def _mark(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length_limit: int) -> None:
        raw = tokenizer.backend_tokenizer
        raw.no_truncation()
        raw.no_padding()
        lengths = [len(found.ids) for found in raw.encode_batch(list(texts))]
        self.cut |= {text for text, length in zip(texts, lengths, strict=True) if length > length_limit}

    def _reads(self, rows: Tensor) -> dict[str, Stacks]:
        """The outputs of the frozen encoders for these rows, one at a time."""
        new = self._learned[rows]
        if self.disk_cache is None or bool(new.all()):
            return self._read_here(rows)
        found: dict[str, Stacks] = {}
        back = torch.cat([(~new).nonzero()[:, 0], new.nonzero()[:, 0]]).argsort()
        kept, own = rows[~new], self._read_here(rows[new])
        for name, encoder in self.frozen.items():
            tokens = {key: value[kept] for key, value in self._tokens[name].items()}
            for key, value in self.disk_cache.readings(self.family, name, encoder, tokens).items():
                found[key] = Stacks.joined([value, own[key]] if key in own else [value], back)
        return found

    def _read_here(self, rows: Tensor) -> dict[str, Stacks]:
        each = [self._read_rows(rows[i : i + 1], torch.device("cpu")) for i in range(len(rows))]
        return {key: Stacks.of(torch.cat([outputs[key] for outputs in each])) for key in (each[0] if each else ())}

    def _read_rows(
        self, rows: Tensor, device: torch.device, names: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """By the frozen encoders (of these ``names``), on any device; the outputs are moved to ``device``."""
        outputs: dict[str, Tensor] = {}
        for name, encoder in self.frozen.items():
            if names is not None and name not in names:
                continue
            at = next(encoder.parameters()).device
            out = self.family.read(name, encoder, {k: v[rows].to(at) for k, v in self._tokens[name].items()})
            outputs |= {key: value.to(device) for key, value in out.items()}
        return outputs

    def _weights(self) -> tuple[int, int]:
        """Changes with every change of a frozen encoder's weights, those that are being learned left out."""
        still = [p._version for e in self.frozen.values() for p in e.parameters() if not p.requires_grad]
        return len(still), sum(still)

    @property
    def learning(self) -> list[Tensor]:
        """The rows of new tokens that are being learned in frozen encoders."""
        return [row for row in rows_of(self.frozen.values()) if row.requires_grad]

    def _now(
        self, outputs: dict[str, Tensor], at: Tensor, rows: list[Tensor], device: torch.device
    ) -> dict[str, Tensor]:
        """What was cached, but captions with new tokens as they are read at this moment, with a gradient."""
        nothing = torch.stack([row.sum() for row in rows]).sum().to(device) * 0.0  # a zero gradient without new tokens
        some = self._learned[at].nonzero()[:, 0]
        if not len(some):
            return {key: value + nothing for key, value in outputs.items()}
        which, back = torch.unique(at[some], return_inverse=True)
        now, place = self._read_rows(which, device, self._first), some.to(device)
        return {
            key: value.index_copy(0, place, now[key][back.to(device)]) if key in now else value
            for key, value in outputs.items()
        }

    def rows(self, keys: Tensor) -> tuple[Read, Mapping[str, Read]]:
        """N rows of the frozen encoders' outputs, and of the tokens for each trained one, on the device of ``keys``."""
        device, at = keys.device, self._rows(keys.cpu())
        if self.cache and self._stamp != self._weights():
            self._stamp = self._weights()
            with torch.inference_mode(False), torch.no_grad():
                self._read = self._reads(torch.arange(len(self._row)))
            self.notes.append(f"{len(self._row)} captions were encoded again: the text encoder's weights had changed")
        learning = self.learning
        if self.cache:
            outputs = {key: value[at].to(device) for key, value in self._read.items()}
            outputs = self._now(outputs, at, learning, device) if learning else outputs
        elif learning:
            outputs = self._read_rows(at, device)
        else:
            with torch.no_grad():
                outputs = self._read_rows(at, device)
        for value_name, value in self.absent.items():
            outputs[value_name] = value.to(device).expand(len(at), *value.shape[1:])
        tokens = {
            name: {key: value[at].to(device) for key, value in self._tokens[name].items()}
            for name in sorted(self.trained)
        }
        return self.quiet(outputs, keys), tokens

    def quiet(self, outputs: Read, keys: Tensor) -> dict[str, Tensor]:
        """Zeros where there is no caption, in a pipeline that requires it."""
        if not self.family.zeroed:
            return dict(outputs)
        spoken = (keys != NONE).to(torch.float32)
        return {key: value * spoken.reshape(-1, *[1] * (value.ndim - 1)) for key, value in outputs.items()}


def _spelled(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Texts with each token of several vectors written out, ``<cat>`` as ``<cat> <cat>_1``, as diffusers does."""
    added = tokenizer.get_added_vocab()
    found = list(texts)
    for token in added:
        if f"{token}_1" in added:
            count = next(i for i in range(1, len(added) + 1) if f"{token}_{i}" not in added)
            whole = " ".join([token, *(f"{token}_{i}" for i in range(1, count))])
            found = [text.replace(token, whole) for text in found]
    return found


def _append(held: dict[str, Stacks], more: Mapping[str, Stacks]) -> None:
    for key, value in more.items():
        held[key] = Stacks.joined([held[key], value]) if key in held else value

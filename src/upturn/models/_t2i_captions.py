"""The captions a model has met, by key: their tokens, and what frozen text encoders make of them, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from upturn import seeds
from upturn.models._t2i_family import Family, Read

NONE = 0  # the key of no caption at all, which is what guidance leads away from


@dataclass(eq=False)
class Captions:
    """Rows of text for the denoiser. A batch holds keys of captions, never their embeddings: those stand here once.

    A key is the same in every model, so a batch that meets a model which has never read its captions is an error.

    Encoders in ``frozen`` are read once a caption where ``cache`` says so, each caption alone, so that what it is read
    as never depends on its neighbours; else at every call. ``trained`` names encoders that the denoiser's module holds:
    of them only tokens are kept. What is cached is made anew, and ``notes`` says so, when an encoder's weights changed.
    """

    family: Family
    tokenizers: Mapping[str, Any]  # by the name of the encoder that reads the tokens
    frozen: Mapping[str, nn.Module]
    trained: frozenset[str]
    silent: Mapping[str, Tensor]  # (1, …) in the place of encoders that the pipeline has not
    cache: bool = True
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._row: dict[int, int] = {}  # of each key, in the tables below
        self._sorted = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)  # keys, and their rows
        self._tokens: dict[str, dict[str, Tensor]] = {}
        self._read: dict[str, Tensor] = {}
        self._stamp = self._weights()
        self.cut: set[str] = set()  # captions longer than an encoder reads
        self.keys([None])

    def keys(self, texts: Sequence[str | None]) -> Tensor:
        """(N,) int64; None is no caption. Captions that were never met are read."""
        every = {text: NONE if text is None else seeds.key("caption", text) for text in dict.fromkeys(texts)}
        fresh = {key: text or "" for text, key in every.items() if key not in self._row}
        if fresh:
            with torch.inference_mode(False), torch.no_grad():  # sampling may ask first, and training reads them later
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

    def _add(self, texts: Sequence[str]) -> None:
        for name, tokenizer in self.tokenizers.items():
            found = self.family.tokens(name, tokenizer, texts)
            self._mark(tokenizer, texts, found["ids"].shape[1])
            held = self._tokens.setdefault(name, {})
            for key, value in found.items():
                held[key] = torch.cat([held[key], value]) if key in held else value
        if self.cache:
            _append(self._read, self._reads(range(len(self._row), len(self._row) + len(texts))))

    def _mark(self, tokenizer: Any, texts: Sequence[str], room: int) -> None:
        raw = tokenizer.backend_tokenizer
        raw.no_truncation()
        raw.no_padding()
        lengths = [len(found.ids) for found in raw.encode_batch(list(texts))]
        self.cut |= {text for text, length in zip(texts, lengths, strict=True) if length > room}

    def _reads(self, rows: Sequence[int] | range) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for row in rows:
            _append(found, self._read_rows(torch.tensor([row]), torch.device("cpu")))
        return found

    def _read_rows(self, rows: Tensor, device: torch.device) -> dict[str, Tensor]:
        """By the frozen encoders, wherever they are; what they say is moved to ``device``."""
        said: dict[str, Tensor] = {}
        for name, encoder in self.frozen.items():
            at = next(encoder.parameters()).device
            out = self.family.read(name, encoder, {k: v[rows].to(at) for k, v in self._tokens[name].items()})
            said |= {key: value.to(device) for key, value in out.items()}
        return said

    def _weights(self) -> int:
        """Grows with every change of a frozen encoder's weights."""
        return sum(parameter._version for encoder in self.frozen.values() for parameter in encoder.parameters())

    def rows(self, keys: Tensor) -> tuple[Read, Mapping[str, Read]]:
        """N rows of what frozen encoders say, and of the tokens for each trained one, on the device of ``keys``."""
        device, at = keys.device, self._rows(keys.cpu())
        if self.cache and self._stamp != self._weights():
            self._stamp = self._weights()
            with torch.inference_mode(False), torch.no_grad():
                self._read = self._reads(range(len(self._row)))
            self.notes.append(f"{len(self._row)} captions were read anew: the text encoder's weights had changed")
        if self.cache:
            said = {key: value[at].to(device) for key, value in self._read.items()}
        else:
            with torch.no_grad():
                said = self._read_rows(at, device)
        for value_name, value in self.silent.items():
            said[value_name] = value.to(device).expand(len(at), *value.shape[1:])
        tokens = {
            name: {key: value[at].to(device) for key, value in self._tokens[name].items()}
            for name in sorted(self.trained)
        }
        return self.quiet(said, keys), tokens

    def quiet(self, said: Read, keys: Tensor) -> dict[str, Tensor]:
        """Zeros where there is no caption, in a pipeline that wants it so."""
        if not self.family.zeroed:
            return dict(said)
        spoken = (keys != NONE).to(torch.float32)
        return {key: value * spoken.reshape(-1, *[1] * (value.ndim - 1)) for key, value in said.items()}


def _append(held: dict[str, Tensor], more: Read) -> None:
    for key, value in more.items():
        held[key] = torch.cat([held[key], value]) if key in held else value

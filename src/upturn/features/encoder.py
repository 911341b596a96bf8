"""Any local ``transformers`` encoder of text or images, mean-pooled."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from upturn.embeddings.image_tensors import prepared
from upturn.errors import UserError
from upturn.features._local_encoder import load, preparation
from upturn.protocols import Features
from upturn.types import Array, Samples

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LONGEST = 512  # tokens, where neither the tokenizer nor the config has a limit (BERT's)


@dataclass
class Encoder(Features):
    """Any local ``transformers`` encoder of text or images, its last hidden states averaged.

    Texts: the mean over the tokens of the completion (Sentence-BERT's pooling, Reimers and Gurevych 2019). Images: the
    mean over patches or positions, of images resized to the encoder's own size with the mean and deviation of its
    ``preprocessor_config.json``. Nothing is fetched, weights are safetensors only, no code from the folder runs.

    folder  with config.json, model.safetensors and, for text, the tokenizer
    batch   samples in one pass; the features do not depend on it beyond rounding
    """

    folder: str
    batch: int = 64
    _loaded: Any = field(default=None, init=False, repr=False, compare=False)

    several_sizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")

    def embed(self, samples: Samples, tools: object) -> Array:
        """(N, D) float32, D the hidden size.

        Raises UserError where the folder is not such an encoder. Warns, with the count, of texts cut to its length.
        """
        import torch

        if samples.kind == "points":
            raise UserError("an encoder reads text or images, and these samples are points", where="features",
                            fix="Use 'points'.")
        if self._loaded is None:
            self._loaded = load(Path(self.folder).expanduser(), samples.kind)
        model, tokenizer = self._loaded
        with torch.no_grad():
            if samples.kind == "text":
                return self._texts(model, tokenizer, [str(text) for text in samples.content])
            return self._images(model, samples.content)

    def _images(self, model: PreTrainedModel, content: Array) -> Array:
        size, mean, std = preparation(Path(self.folder).expanduser(), model.config)
        parts = []
        for start in range(0, len(content), self.batch):
            pixels = prepared(content[start : start + self.batch], size, mean, std)
            hidden = model(pixel_values=pixels).last_hidden_state
            parts.append(hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden.mean(1))  # convolutions or patches
        return _joined(parts)

    def _texts(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Array:
        import torch

        limit = min(getattr(model.config, "max_position_embeddings", None) or _LONGEST, tokenizer.model_max_length)
        tokens = tokenizer(texts, truncation=True, max_length=limit, return_attention_mask=False)["input_ids"]
        _warn_of_cuts(tokenizer, texts, tokens, limit)
        order = np.argsort([len(row) for row in tokens], kind="stable")
        parts = []
        for rows in np.split(order, range(self.batch, len(order), self.batch)):
            length = max(1, max((len(tokens[row]) for row in rows), default=1))
            ids = torch.zeros((len(rows), length), dtype=torch.int64)
            mask = torch.zeros((len(rows), length), dtype=torch.int64)
            for place, row in enumerate(rows):
                ids[place, : len(tokens[row])] = torch.tensor(tokens[row], dtype=torch.int64)
                mask[place, : len(tokens[row])] = 1
            # an empty text has no token: one padding token is read, and its state left out of the mean
            seen = mask if bool(mask.any(1).all()) else torch.maximum(mask, (torch.arange(length) == 0).long())
            hidden = model(input_ids=ids, attention_mask=seen).last_hidden_state
            parts.append((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1))
        return _joined(parts)[np.argsort(order)]


def _joined(parts: list[Any]) -> Array:
    return np.concatenate([part.float().cpu().numpy() for part in parts])


def _warn_of_cuts(tokenizer: PreTrainedTokenizerBase, texts: list[str], tokens: list[list[int]], limit: int) -> None:
    full = [row for row, found in enumerate(tokens) if len(found) >= limit]
    if not full:
        return
    whole = tokenizer([texts[row] for row in full], return_attention_mask=False, verbose=False)["input_ids"]
    cut = sum(len(found) > limit for found in whole)
    if cut:
        warnings.warn(f"{cut} of {len(texts)} texts were cut to {limit} tokens for the features", stacklevel=3)

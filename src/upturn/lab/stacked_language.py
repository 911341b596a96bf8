"""Many small language models trained and sampled as one: every weight has a leading dimension, M.

A causal transformer (Radford et al. 2019, "Language models are unsupervised multitask learners"; norms without weights)
over independent rows of ``length`` tokens. What a model learns and samples depends on its own key alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from upturn import seeds
from upturn.config.schema import Training
from upturn.lab.stacked_diffusion import clip
from upturn.training.schedule import learning_rate
from upturn.types import Array

_ROWS = 256  # of a model in one pass: their activations stay in the cache
_INITIAL = 0.02  # standard deviation of embeddings, as in GPT-2

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # layer, q, k, v (M·R, H, T, d/H) -> what is attended to


@dataclass(frozen=True)
class Size:
    """Of one model."""

    vocabulary: int
    length: int  # tokens of a row
    width: int
    heads: int
    layers: int


class Writers:
    """M models with fresh weights, one for each key; rows are (M, R, length) tokens, each after the token ``begin``."""

    def __init__(self, keys: Sequence[int], size: Size, begin: int) -> None:
        self.size, self.begin = size, begin
        weights = [_fresh(key, size) for key in keys]
        self.weights = {
            name: torch.nn.Parameter(torch.stack([one[name] for one in weights])) for name in weights[0]
        }
        self._first = torch.arange(len(weights))[:, None, None] * size.vocabulary  # of each model's own embeddings

    def __len__(self) -> int:
        return len(self._first)

    def _logits(self, tokens: Tensor, start: int, attend: Attend) -> Tensor:
        """(M, R, T, V) of tokens (M, R, T) at positions ``start`` and following."""
        of, w = self.size, self.weights
        count, rows, length = tokens.shape
        embedded = functional.embedding(tokens + self._first, w["embedding"].flatten(0, 1))
        x = (embedded + w["place"][:, None, start : start + length]).flatten(1, 2)
        heads = (count * rows, length, of.heads, of.width // of.heads)
        for layer in range(of.layers):
            mixed = torch.bmm(_norm(x), w[f"attend.{layer}"]).chunk(3, dim=2)
            seen = attend(layer, *(part.reshape(heads).transpose(1, 2) for part in mixed))
            x = torch.baddbmm(x, seen.transpose(1, 2).reshape(x.shape), w[f"gather.{layer}"])
            hidden = functional.relu(torch.bmm(_norm(x), w[f"wide.{layer}"]))
            x = torch.baddbmm(x, hidden, w[f"back.{layer}"])
        return torch.bmm(_norm(x), w["head"]).reshape(count, rows, length, of.vocabulary)

    def losses(self, rows: Tensor) -> Tensor:
        """(M, R) nats a token."""
        before = functional.pad(rows[:, :, :-1], (1, 0), value=self.begin)
        logits = self._logits(before, 0, _whole)
        flat = functional.cross_entropy(logits.flatten(0, 2), rows.flatten(), reduction="none")
        return flat.reshape(rows.shape).mean(dim=2)

    def train(self, pool: Array, weights: Array, keys: Sequence[int], spec: Training) -> None:
        """``spec.steps`` steps, each model on rows of its own pool (M, N, length), drawn with the
        probabilities ``weights`` (N,)."""
        assert spec.steps is not None
        parameters = list(self.weights.values())
        optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
        chances = np.cumsum(weights)
        picked = np.stack([
            np.searchsorted(chances, seeds.generator(key).random((spec.steps, spec.batch_size)) * chances[-1], "right")
            for key in keys
        ])
        model = np.arange(len(self))[:, None]
        for step in range(spec.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, step, spec.steps)
            rows = torch.from_numpy(pool[model, picked[:, step]].astype(np.int64))
            optimizer.zero_grad(set_to_none=True)
            self.losses(rows).mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
            clip(parameters, spec.clip)
            optimizer.step()

    @torch.inference_mode()
    def measure(self, rows: Array) -> Array:
        """(M, R) nats a token of rows (R, length) that all read, or (M, R, length)."""
        own = torch.from_numpy(rows.astype(np.int64))
        shared = own.expand(len(self), *own.shape[-2:])
        starts = range(0, shared.shape[1], _ROWS)
        return torch.cat([self.losses(shared[:, start : start + _ROWS]) for start in starts], dim=1).numpy()

    @torch.inference_mode()
    def write(self, count: int, keys: Sequence[int]) -> Array:
        """(M, count, length) rows drawn from the models themselves: temperature 1, every token in."""
        sources = [seeds.generator(key) for key in keys]
        return np.concatenate([self._draw(part, sources) for part in _parts(count)], axis=1)

    def _draw(self, rows: int, sources: Sequence[np.random.Generator]) -> Array:
        of, many = self.size, len(self) * rows
        shape = (of.layers, many, of.heads, of.length, of.width // of.heads)
        cache = torch.zeros(2, *shape)
        chance = torch.from_numpy(np.stack([source.random((of.length, rows)) for source in sources], axis=1))
        tokens = torch.full((len(self), rows, 1), self.begin)
        written = torch.empty(len(self), rows, of.length, dtype=torch.int64)
        for at in range(of.length):
            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, at: int = at) -> Tensor:
                cache[0, layer, :, :, at], cache[1, layer, :, :, at] = k[:, :, 0], v[:, :, 0]
                known = cache[:, layer, :, :, : at + 1]
                return functional.scaled_dot_product_attention(q, known[0], known[1])

            shares = self._logits(tokens, at, attend)[:, :, 0].softmax(dim=2).cumsum(dim=2, dtype=torch.float64)
            # below the total, so that the token found has some probability
            target = chance[at][:, :, None] * shares[:, :, -1:]
            tokens = torch.searchsorted(shares, target, right=True).clamp_(max=of.vocabulary - 1)
            written[:, :, at] = tokens[:, :, 0]
        return written.numpy()


def _parts(count: int) -> Iterator[int]:
    """Rows a model, a part at a time."""
    return (min(_ROWS, count - start) for start in range(0, count, _ROWS))


def _fresh(key: int, of: Size) -> dict[str, Tensor]:
    seeds.seed_torch(key)
    across, deep = 1 / math.sqrt(of.width), 1 / math.sqrt(2 * of.layers)  # GPT-2's scale for what is added to the sum
    weights = {
        "embedding": torch.randn(of.vocabulary, of.width) * _INITIAL,
        "place": torch.randn(of.length, of.width) * _INITIAL,
        "head": torch.zeros(of.width, of.vocabulary),
    }
    for layer in range(of.layers):
        weights[f"attend.{layer}"] = torch.randn(of.width, 3 * of.width) * across
        weights[f"gather.{layer}"] = torch.randn(of.width, of.width) * across * deep
        weights[f"wide.{layer}"] = torch.randn(of.width, 4 * of.width) * across
        weights[f"back.{layer}"] = torch.randn(4 * of.width, of.width) * across / 2 * deep
    return weights


def _norm(x: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:])


def _whole(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

"""Sampling text from a causal language model: keyed, batched, with a key-value cache.

Row r's token i is drawn with the uniform number of (key of r, stream i) by the inverse CDF in vocabulary order, so a
text depends on its prompt and its key alone; batches only change the rounding of the logits.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from upturn import seeds
from upturn.adapter_layers.row_adapters import RowAdapters
from upturn.embeddings.unwrap import unwrapped
from upturn.models._language import llama_decode
from upturn.types import Array

if TYPE_CHECKING:
    from transformers import DynamicCache, PretrainedConfig

_COMPACT = 0.875  # finished rows leave once an eighth is done: the copy of the cache costs about one decoding step


@dataclass(frozen=True)
class Choice:
    """How a token is chosen: ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 leave every token in."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Decoded:
    """N completions.

    tokens           (N, T) int64, padded with -1 on the right; the end token is the last where ``stopped``
    lengths          (N,) int64, the end token counted
    stopped          (N,) bool
    log_probs        (N, T) float32 nats under the distribution that was drawn from (0 where greedy)
    model_log_probs  (N, T) float32 nats under the model itself: temperature 1, nothing left out
    """

    tokens: Tensor
    lengths: Tensor
    stopped: Tensor
    log_probs: Tensor
    model_log_probs: Tensor


def choose(logits: Tensor, uniform: Tensor, choice: Choice) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (N,) for logits (N, V) and uniform numbers (N,), with both log-probs (N,), see :class:`Decoded`.

    Nucleus: the smallest set of most probable tokens whose mass reaches ``top_p`` (Holtzman et al. 2020).
    """
    logits = logits.float()
    own = logits.log_softmax(dim=-1)
    if choice.temperature == 0.0:
        tokens = logits.argmax(dim=-1)
        return tokens, torch.zeros_like(uniform), own.gather(1, tokens[:, None])[:, 0]
    plain = choice.temperature == 1.0 and not choice.top_k and choice.top_p >= 1.0
    probs = (own if plain else (logits / choice.temperature).log_softmax(dim=-1)).exp()
    if choice.top_k and choice.top_k < probs.shape[1]:
        least = probs.topk(choice.top_k, dim=-1).values[:, -1:]
        probs = probs.masked_fill(probs < least, 0.0)
    if choice.top_p < 1.0:
        ordered, index = probs.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
        total = probs.sum(dim=-1, keepdim=True, dtype=torch.float64)
        probs = probs.masked_fill(torch.zeros_like(index, dtype=torch.bool).scatter(
            1, index, before >= choice.top_p * total), 0.0)
    cdf = probs.cumsum(dim=-1, dtype=torch.float64)
    # uniform < 1, so the target lies below the total: the token found always has some probability
    target = uniform.to(cdf)[:, None] * cdf[:, -1:]
    tokens = torch.searchsorted(cdf, target, right=True)[:, 0].clamp_(max=probs.shape[1] - 1)
    acted = (probs.gather(1, tokens[:, None])[:, 0].double() / cdf[:, -1]).log().float()
    return tokens, acted, own.gather(1, tokens[:, None])[:, 0]


def decode(
    module: torch.nn.Module, config: PretrainedConfig, prompts: Sequence[Sequence[int]], of: Array, keys: Array, *,
    stop: Sequence[int], max_tokens: int, choice: Choice, batch: int, adapters: RowAdapters | None = None,
) -> Decoded:
    """Completions for N rows: row r continues ``prompts[of[r]]`` with the randomness of ``keys[r]``.

    ``adapters`` has a choice for each of the prompts; None where the same adapters act on all rows.

    Rows are taken ``batch`` at a time, shortest prompts first; each prompt of a batch is read once, whatever its
    number of candidates, and rows that end leave the batch.
    """
    lengths = np.array([len(prompts[p]) for p in of])
    order = np.lexsort((of, lengths))
    parts = [
        _decode_batch(module, config, prompts, of[rows], keys[rows], stop, max_tokens, choice, adapters)
        for rows in np.split(order, range(batch, len(order), batch))
    ]
    return joined(parts, np.argsort(order))


def joined(parts: Sequence[Decoded], back: Array) -> Decoded:
    """Several calls' rows as one; row r is row ``back[r]`` of them all."""
    width = max(part.tokens.shape[1] for part in parts)
    rows = torch.from_numpy(back)

    def join(name: str, fill: float) -> Tensor:
        columns = [getattr(part, name) for part in parts]
        wide = [torch.nn.functional.pad(c, (0, width - c.shape[1]), value=fill) for c in columns]
        return torch.cat(wide)[rows]

    return Decoded(
        join("tokens", -1), torch.cat([p.lengths for p in parts])[rows], torch.cat([p.stopped for p in parts])[rows],
        join("log_probs", 0.0), join("model_log_probs", 0.0),
    )


@torch.no_grad()
def _decode_batch(
    module: torch.nn.Module, config: PretrainedConfig, prompts: Sequence[Sequence[int]], of: Array, keys: Array,
    stop: Sequence[int], max_tokens: int, choice: Choice, adapters: RowAdapters | None,
) -> Decoded:
    from transformers import DynamicCache

    device = next(module.parameters()).device
    used, row_prompt = np.unique(of, return_inverse=True)
    # the distribution over the next token, for each prompt once, then for each of its candidates
    if adapters is not None:
        adapters.select(torch.from_numpy(used))
    read = _Step(module, [prompts[p] for p in used], DynamicCache(config=config), device)
    logits = read.read()
    index = torch.from_numpy(row_prompt).to(device)
    logits = logits[index]
    read.keep(index)
    if adapters is not None:
        adapters.keep(index)
    # a wrapper (several processes) may hold the weights elsewhere: then the wrapper is called
    quick = unwrapped(module) is module and llama_decode.fits(module)
    step = llama_decode.LlamaStep(module, read.cache, read.mask, read.at, max_tokens) if quick else read

    count = len(of)
    tokens = torch.full((count, max_tokens), -1, dtype=torch.int64, device=device)
    acted = torch.zeros(count, max_tokens, device=device)
    own = torch.zeros(count, max_tokens, device=device)
    live = torch.arange(count, device=device)  # the row that each row of the running batch writes to
    done = torch.zeros(count, dtype=torch.bool, device=device)
    row_keys = keys
    ends = torch.tensor(list(stop), device=device)
    for at in range(max_tokens):
        chance = seeds.uniform(row_keys, stream=at).to(device)
        chosen, acted_now, own_now = choose(logits, chance, choice)
        open_rows = ~done[live]
        write = live[open_rows]
        tokens[write, at] = chosen[open_rows]
        acted[write, at] = acted_now[open_rows]
        own[write, at] = own_now[open_rows]
        done[live] |= chosen == ends if len(stop) == 1 else torch.isin(chosen, ends)
        going = ~done[live]
        left = int(going.sum())
        if left == 0 or at == max_tokens - 1:
            break
        if left <= _COMPACT * len(live):
            keep = going.nonzero()[:, 0]
            step.keep(keep)
            if adapters is not None:
                adapters.keep(keep)
            live, chosen, row_keys = live[keep], chosen[keep], row_keys[keep.cpu().numpy()]
        logits = step.next(chosen)
    lengths = (tokens >= 0).sum(dim=1)
    width = int(lengths.max())
    return Decoded(
        tokens[:, :width].cpu(), lengths.cpu(), done.cpu(), acted[:, :width].cpu(), own[:, :width].cpu()
    )


class _Step:
    """A module reading prompts padded on the left, then one token a row at a time; ``keep`` picks and repeats rows."""

    def __init__(
        self, module: torch.nn.Module, prompts: Sequence[Sequence[int]], cache: DynamicCache, device: torch.device
    ) -> None:
        width = max(len(prompt) for prompt in prompts)
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # distinct prompts, not samples
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        self.module, self.cache = module, cache
        self.ids = torch.from_numpy(ids).to(device)
        # without padding no mask is needed, and attention takes its fast path
        self.mask = None if mask.all() else torch.from_numpy(mask).to(device)
        self.at = torch.from_numpy(mask.sum(axis=1)).to(device)  # the position of each row's next token
        parameters = inspect.signature(unwrapped(module).forward).parameters
        self.positioned = "position_ids" in parameters
        self.last_only = "logits_to_keep" in parameters

    def _call(self, ids: Tensor, positions: Tensor) -> Tensor:
        extra: dict[str, Any] = {"position_ids": positions} if self.positioned else {}
        if self.mask is not None:
            extra["attention_mask"] = self.mask
        if self.last_only:
            extra["logits_to_keep"] = 1
        out = self.module(input_ids=ids, past_key_values=self.cache, use_cache=True, **extra)
        logits: Tensor = out.logits[:, -1]
        return logits

    def read(self) -> Tensor:
        """(prompts, V) logits of the token after each prompt."""
        width = self.ids.shape[1]
        back = torch.arange(width, device=self.ids.device) - width
        return self._call(self.ids, (self.at[:, None] + back[None, :]).clamp_(min=0))

    def next(self, tokens: Tensor) -> Tensor:
        """(rows, V) logits of the token after ``tokens`` (rows,)."""
        if self.mask is not None:
            self.mask = torch.nn.functional.pad(self.mask, (0, 1), value=1)
        positions, self.at = self.at[:, None], self.at + 1
        return self._call(tokens[:, None], positions)

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.at = self.at[rows]
        if self.mask is not None:
            self.mask = self.mask[rows]

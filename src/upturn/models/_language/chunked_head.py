"""log p(token) directly from hidden states, a chunk of rows at a time: the whole table of logits is never allocated.

For a row h, head W, bias b, temperature τ and token y: z = (W h + b) / τ and log p = z_y - logsumexp(z). The backward
pass recomputes z from h, or, where the head is frozen, needs none of it: the gradient to h is then kept instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits at once (32 MB of float32). A training step, one thread, vocabulary 32,000, hidden 256, 4 layers, 8 x 256
# tokens, time over that with whole logits, medians of 3 pairs on a shared machine, within 0.2 of each other: 1.33 by
# 2^20, 1.02 by 2^21, 0.79 by 2^22, 0.78 by 2^23, 0.73 by 2^24. More takes more memory.
_CHUNK = 1 << 23
CHUNK_BYTES = 4 * _CHUNK
# Bytes of float32 logits. The same ratio of the same step at fewer tokens: 1.11 to 1.19 at 8 to 31 MiB, where the
# second product with the head costs more than the table; 1.03 at 62 MiB; below 1 at 125 and at 250 (0.88 of the
# processor's time).
_PAYS_FROM = 1 << 26


def pays(rows: int, vocabulary: int) -> bool:
    """Whether float32 logits of so many rows are large enough for chunks to pay."""
    return 4 * rows * vocabulary >= _PAYS_FROM


def head_log_probs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, mask: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """(N, T) nats, float32 or wider, of tokens (N, T) for hidden (N, T, D), weight (V, D) and bias (V,).

    0 where ``mask`` (N, T) is 0: those positions are left out of the work. The arithmetic is in the precision of
    autocast where that is on, else in that of ``hidden``; sums over the vocabulary are float32 or wider.
    """
    flat, index = hidden.flatten(0, -2), tokens.flatten()
    there = None if mask is None else (mask.flatten() > 0).nonzero()[:, 0]
    if there is not None:
        flat, index = flat[there], index[there]
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        flat = flat.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        found: Tensor = _HeadLogProbs.apply(flat, weight, bias, index, temperature)  # type: ignore[no-untyped-call]
    if there is not None:
        found = found.new_zeros(tokens.numel()).index_copy(0, there, found)
    return found.view(tokens.shape)


class _Logits:
    """Chunks of (rows, V) logits over temperature, all written into one buffer."""

    def __init__(self, flat: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> None:
        self.flat, self.temperature = flat, temperature
        self.weight = weight.to(flat.dtype)
        self.bias = None if bias is None else bias.to(flat.dtype)
        self.wide = torch.promote_types(flat.dtype, torch.float32)
        self.rows = max(1, _CHUNK // len(weight))
        self.buffer = flat.new_empty(min(self.rows, len(flat)), len(weight))

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """(which rows, their logits): wide, and free to be written into until the next."""
        for start in range(0, len(self.flat), self.rows):
            part = slice(start, min(start + self.rows, len(self.flat)))
            logits = self.buffer[: part.stop - start]
            if self.bias is None:
                torch.mm(self.flat[part], self.weight.t(), out=logits)
            else:
                torch.addmm(self.bias, self.flat[part], self.weight.t(), out=logits)
            logits = logits.to(self.wide)
            yield part, logits if self.temperature == 1.0 else logits.div_(self.temperature)


class _HeadLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, weight: Tensor, bias: Tensor | None, index: Tensor, temperature: float
    ) -> Tensor:
        chunks = _Logits(flat, weight, bias, temperature)
        frozen = not any(ctx.needs_input_grad[1:3])
        slopes = torch.empty_like(flat) if frozen and ctx.needs_input_grad[0] else None  # d log p / d hidden
        found, total = (torch.empty(len(flat), dtype=chunks.wide, device=flat.device) for _ in range(2))
        for part, logits in chunks:
            chosen = logits.gather(1, index[part, None])[:, 0]
            top = logits.amax(dim=1)
            mass = logits.sub_(top[:, None]).exp_().sum(dim=1)
            total[part] = mass.log() + top
            found[part] = chosen - total[part]
            if slopes is not None:
                probs = logits.div_(mass[:, None]).to(flat.dtype)
                slopes[part] = (chunks.weight[index[part]] - probs @ chunks.weight) / temperature
        ctx.temperature, ctx.frozen = temperature, frozen
        if slopes is not None:
            ctx.save_for_backward(slopes)
        else:
            ctx.save_for_backward(flat, weight, bias, index, total)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        upstream = grads[0]
        if ctx.frozen:
            (slopes,) = ctx.saved_tensors
            return (slopes * upstream[:, None]).to(slopes.dtype), None, None, None, None
        flat, weight, bias, index, total = ctx.saved_tensors
        to_flat, to_weight, to_bias = ctx.needs_input_grad[:3]
        chunks = _Logits(flat, weight, bias, ctx.temperature)
        d_flat = torch.empty_like(flat) if to_flat else None
        # summed over chunks, so in no less than float32
        d_weight = torch.zeros_like(weight, dtype=chunks.wide) if to_weight else None
        d_bias = torch.zeros_like(bias, dtype=chunks.wide) if to_bias else None
        for part, logits in chunks:
            scale = upstream[part, None] / ctx.temperature
            slope = logits.sub_(total[part, None]).exp_().mul_(-scale)
            slope.scatter_add_(1, index[part, None], scale)
            narrow = slope.to(flat.dtype)
            if d_flat is not None:
                torch.mm(narrow, chunks.weight, out=d_flat[part])
            if d_weight is not None:
                _add_product(d_weight, narrow, flat[part])
            if d_bias is not None:
                d_bias += slope.sum(dim=0)
        return (
            d_flat, None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype), None, None,
        )


def _add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """into (V, D) += left (n, V)ᵀ right (n, D), of any precision."""
    if left.dtype == into.dtype:
        into.addmm_(left.t(), right)
    else:
        into += left.t() @ right

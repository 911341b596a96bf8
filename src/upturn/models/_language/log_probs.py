"""log p(token) for every position, without a float32 table of the whole vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 24  # float32 numbers of scratch (64 MB): the logits are widened this many at a time


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        flat, index = logits.flatten(0, -2), tokens.flatten()
        rows = max(1, _BLOCK // logits.shape[-1])
        wide = torch.promote_types(logits.dtype, torch.float32)
        total = torch.cat([part.to(wide).logsumexp(dim=-1) for part in torch.split(flat, rows)])
        ctx.save_for_backward(flat, index, total)
        ctx.shape = logits.shape
        chosen = flat.gather(1, index[:, None])[:, 0].to(wide)
        return (chosen - total).view(tokens.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        flat, index, total = ctx.saved_tensors
        grad = grads[0].flatten()
        rows = max(1, _BLOCK // flat.shape[-1])
        out = torch.empty_like(flat)
        parts = (torch.split(every, rows) for every in (out, flat, total, grad))
        for into, part, norm, g in zip(*parts, strict=True):
            into.copy_((part.to(norm.dtype) - norm[:, None]).exp_().mul_(-g[:, None]))
        out.scatter_add_(1, index[:, None], grad[:, None].to(out.dtype))
        return out.view(ctx.shape), None


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """(N, T) nats, float32 or wider, for logits (N, T, V) and tokens (N, T): the gathered logit less the logsumexp.

    The backward pass writes softmax and gradient into one (N, T, V) tensor of the logits' own precision.
    """
    found: Tensor = _TokenLogProbs.apply(logits, tokens)  # type: ignore[no-untyped-call]
    return found

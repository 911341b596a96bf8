"""Finds models whose head is one linear map with nothing after it, and gives their hidden states.

Not plain, so that log-probs come from the model's own whole logits:
  logits capped or scaled after the head  gemma2, gemma3, gemma4 (soft caps), nanochat, granite, cohere, hyperclovax, …
  a head that is not an ``nn.Linear``     one with an adapter on it, a quantised one, several codebooks (musicgen)
  a head that is split among processes   fully sharded weights
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_REACH = 1e4  # larger than any logit: reveals a cap or a narrower float type
_known: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def plain_head(inner: PreTrainedModel) -> torch.nn.Linear | None:
    """The head of a `transformers` model whose logits are its output as it is; None where they are not."""
    head = inner.get_output_embeddings()
    if type(head) is not torch.nn.Linear or head._forward_hooks or head._forward_pre_hooks:
        return None
    # in a forward pass of sharded weights they are whole, and outside of it they are not
    if type(head.weight) is not torch.nn.Parameter or head.weight.shape != (head.out_features, head.in_features):
        return None
    if inner not in _known:
        _known[inner] = _nothing_follows(inner, head)
    return head if _known[inner] else None


@contextmanager
def aside(inner: PreTrainedModel, head: torch.nn.Linear) -> Iterator[None]:
    """Inside, the head is the identity: what the model returns as logits (N, T, V) are hidden states (N, T, D)."""
    with _replaced(inner, head, _through(inner)):
        yield


class _Ramp(torch.nn.Module):
    """Returns known numbers for every input and counts its calls."""

    def __init__(self, width: int, like: Tensor) -> None:
        super().__init__()
        self.values = torch.linspace(-_REACH, _REACH, width, device=like.device, dtype=like.dtype)
        self.calls = 0

    def forward(self, hidden: Tensor) -> Tensor:
        self.calls += 1
        return self.values.expand(*hidden.shape[:-1], -1)


@torch.no_grad()
def _nothing_follows(inner: PreTrainedModel, head: torch.nn.Linear) -> bool:
    """Whether the logits are the head's output unchanged: tested once, on two tokens, with known numbers as its output.

    Tested by the logits, not by the model's name or config: the key of a cap differs between models, and a high cap
    does not change a new model's small logits.
    """
    ramp = _Ramp(head.out_features, head.weight)
    tokens = torch.zeros(1, 2, dtype=torch.int64, device=head.weight.device)
    with torch.random.fork_rng(), _replaced(inner, head, ramp):  # dropout may draw: not from the training's stream
        out = inner(input_ids=tokens, use_cache=False).logits
    expected = ramp.values.expand(1, 2, -1)
    return ramp.calls == 1 and out.shape == expected.shape and bool(torch.equal(out.to(expected.dtype), expected))


def _through(inner: PreTrainedModel) -> torch.nn.Module:
    """One substitute per model for its lifetime: a compiled model knows modules by identity."""
    return _identities.setdefault(inner, torch.nn.Identity())


_identities: WeakKeyDictionary[torch.nn.Module, torch.nn.Module] = WeakKeyDictionary()


@contextmanager
def _replaced(inner: PreTrainedModel, head: torch.nn.Linear, by: torch.nn.Module) -> Iterator[None]:
    places = [
        (parent, name) for parent in inner.modules() for name, child in parent._modules.items() if child is head
    ]
    for parent, name in places:
        parent._modules[name] = by
    try:
        yield
    finally:
        for parent, name in places:
            parent._modules[name] = cast(torch.nn.Module, head)

"""New tokens of a text encoder: rows beside its embedding, whose own table is unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WORDS = "words"  # the submodule under which a denoiser holds the rows of encoders that it does not hold


class Words(nn.Module):
    """An embedding whose ids from ``first`` on are rows of its own, a parameter (vectors, width) for each token."""

    def __init__(self, base: nn.Embedding, first: int) -> None:
        super().__init__()
        self.base, self.first = base, first
        self.rows = nn.ParameterList()

    @property
    def weight(self) -> Tensor:
        """The base's table, for libraries that read the dtype of an embedding."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(..., L) ids -> (..., L, width). The rows have a gradient of zero where no id is a new token."""
        if not len(self.rows):
            found: Tensor = self.base(ids)
            return found
        new = ids >= self.first
        known = self.base(ids.masked_fill(new, 0))
        learned = nn.functional.embedding((ids - self.first).clamp(min=0), torch.cat(list(self.rows)))
        return torch.where(new[..., None], learned, known)


def wrapped(module: nn.Module) -> list[tuple[nn.Module, str, Words]]:
    """(parent, name in it, embedding) of every embedding with rows for new tokens."""
    return [
        (parent, name, child) for parent in module.modules() for name, child in parent.named_children()
        if isinstance(child, Words)
    ]


def rows_of(encoders: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [row for encoder in encoders for _, _, words in wrapped(encoder) for row in words.rows]


@contextmanager
def without(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the modules are those of the library: embeddings without rows of their own."""
    taken = [found for module in modules for found in wrapped(module)]
    for parent, name, words in taken:
        parent._modules[name] = words.base
    try:
        yield
    finally:
        for parent, name, words in taken:
            parent._modules[name] = words

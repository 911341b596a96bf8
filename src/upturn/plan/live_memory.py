"""The largest number of bytes of tensors that live at once while something runs, on any device."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, every new tensor counts from its creation until it is freed; ``peak`` is in bytes.

    Two kinds do not count: those shaped like a weight of ``module`` (gradients, moments: known without measuring), and
    those whose last dimension is ``vocabulary`` (logits grow in another way than activations do).
    """

    def __init__(self, module: torch.nn.Module, vocabulary: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        shapes = {tuple(p.shape) for p in module.parameters()}
        self._weights = shapes | {shape[::-1] for shape in shapes}
        self._vocabulary, self.peak, self._now = vocabulary, 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf, given)
        return out

    def _count(self, tensor: torch.Tensor, given: set[int]) -> None:
        address = _address(tensor)
        if not address or address in given or address in self._known:
            return  # a view, or written in place
        shape = tuple(tensor.shape)
        if shape in self._weights or (self._vocabulary and shape and shape[-1] == self._vocabulary):
            return
        storage = tensor.untyped_storage()
        self._known.add(address)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, address, storage.nbytes())

    def _free(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._now -= size


def _address(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0  # a tensor without storage of its own: sparse, or a wrapper

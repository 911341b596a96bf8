"""Weights of fewer than 32 bits are trained in float32: a step below their precision would be lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

_NARROW = (torch.bfloat16, torch.float16)


class MasterWeights:
    """The trained parameters of a model in float32, from construction to ``finish`` (Micikevicius et al. 2018, 3.1).

    A step of AdamW moves a weight by about the learning rate; bfloat16 keeps 8 significant bits, so that a weight w
    stays where it is under steps below w / 512.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.narrow = [(p, p.dtype) for p in parameters if p.dtype in _NARROW]
        for parameter, _ in self.narrow:
            parameter.data = parameter.data.float()

    def finish(self) -> None:
        """The parameters have their own type again."""
        for parameter, dtype in self.narrow:
            parameter.data, parameter.grad = parameter.data.to(dtype), None

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Inside, the parameters are as ``finish`` would leave them; afterwards they have every bit again."""
        kept = [parameter.data for parameter, _ in self.narrow]
        for parameter, dtype in self.narrow:
            parameter.data = parameter.data.to(dtype)
        try:
            yield
        finally:
            for (parameter, _), values in zip(self.narrow, kept, strict=True):
                parameter.data = values

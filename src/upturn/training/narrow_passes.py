"""bf16 on a CPU: weights in bfloat16 during forward and backward passes, in float32 for everything else.

Autocast rounds a frozen weight at each use, a trained one in each pass, and each input once a layer that reads it. Here
a frozen weight is rounded once a training and a trained one once a step, and what layers hand on is bfloat16. Between
the passes the parameters hold their float32 values, so that optimizer, EMA, adapters and checkpoints are those of fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor

from upturn.config.schema import Training
from upturn.embeddings.bf16_support import multiplies_bf16
from upturn.protocols import Trainable

Parameter = torch.nn.Parameter


@dataclass(eq=False)
class NarrowPasses:
    """``with passes(module):`` around forward and backward; ``collect()`` after each backward.

    Gradients of several micro-batches are added in float32. Where ``on`` is false it does nothing.
    """

    on: bool = False
    _rounded: dict[int, tuple[Parameter, int, Tensor]] = field(default_factory=dict, init=False)
    _inside: dict[int, tuple[Parameter, Tensor]] = field(default_factory=dict, init=False)
    _sums: dict[int, Tensor] = field(default_factory=dict, init=False)

    @contextmanager
    def __call__(self, module: torch.nn.Module) -> Iterator[None]:
        entered = self._enter(module) if self.on else []
        try:
            yield
        finally:
            for parameter in entered:
                parameter.data = self._inside.pop(id(parameter))[1]
                parameter.grad = self._sums.pop(id(parameter), None)

    @torch.no_grad()
    def _enter(self, module: torch.nn.Module) -> list[Parameter]:
        """Those that were not inside already."""
        wide = [p for p in module.parameters() if p.dtype == torch.float32]
        for parameter in wide:
            own, known = parameter.data, self._rounded.get(id(parameter))
            if known is None or known[1] != own.data_ptr() or known[2].shape != own.shape:
                known = self._rounded[id(parameter)] = (parameter, own.data_ptr(), own.to(torch.bfloat16))
            elif parameter.requires_grad:
                known[2].copy_(own)
            self._inside[id(parameter)] = parameter, own
            if parameter.grad is not None:
                self._sums[id(parameter)] = parameter.grad
                parameter.grad = None
            parameter.data = known[2]
        return wide

    @torch.no_grad()
    def collect(self) -> None:
        """The gradients so far, in float32."""
        for place, (parameter, _) in self._inside.items():
            if parameter.grad is None:
                continue
            if place in self._sums:
                self._sums[place] += parameter.grad
            else:
                self._sums[place] = parameter.grad.float()
            parameter.grad = None


def narrows(spec: Training, model: Trainable, accelerator: Accelerator) -> bool:
    """Whether this training runs in bf16 by narrow passes (or in float32, see ``emulated``) instead of autocast."""
    wanted = spec.precision == "bf16" and model.bf16_weights
    return wanted and accelerator.device.type == "cpu" and accelerator.num_processes == 1


def emulated(spec: Training, model: Trainable, accelerator: Accelerator) -> bool:
    """Whether bf16 would be slower than float32 on this processor, so that float32 is used."""
    return narrows(spec, model, accelerator) and not multiplies_bf16(accelerator.device)

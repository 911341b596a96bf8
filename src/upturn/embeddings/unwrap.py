"""The model itself, out of what a trainer wraps around it: DDP, FSDP, DeepSpeed, compilation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def unwrapped(module: nn.Module) -> nn.Module:
    """``accelerate``'s unwrapping, repeated until nothing is left; wrappers of this project as well."""
    while hasattr(module, "_orig_mod") or hasattr(getattr(module, "module", None), "parameters"):
        # imported here: it brings torch's compiler along, and a module without a wrapper does not need it
        from accelerate.utils import extract_model_from_parallel

        inner: nn.Module = extract_model_from_parallel(module, keep_torch_compile=False)
        if inner is module:  # a wrapper of this project, which accelerate does not know
            inner = getattr(module, "module", module)
            if inner is module:
                break
        module = inner
    return module

"""Device, precision and processes of a training, as ``accelerate`` finds them."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from upturn.config.schema import Training


def accelerator_for(spec: Training) -> Accelerator:
    precision = {"fp32": "no", "bf16": "bf16"}.get(spec.precision, "no")
    if spec.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        precision = "bf16"
    # accelerate keeps one precision per process, but each stage has its own; the process group is kept
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)

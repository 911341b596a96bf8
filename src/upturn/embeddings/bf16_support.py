"""Whether a device multiplies bfloat16 matrices in hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def multiplies_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there.

    A CPU without it (no AMX, no AVX512_BF16) emulates: 0.8 (A B) to 8 (A Bᵀ) GFLOP/s instead of 53 in float32, one
    thread of an EPYC of the third generation, 1,024 x 1,024 x 1,024 (python bench/bf16.py peak).
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))

"""Noise levels shared by the formulations: normal quantiles and power schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 2.0**-24  # the step of the uniform numbers: 0 becomes half of it, so that no quantile is infinite


def inside(u: Tensor) -> Tensor:
    """Uniform numbers of [0, 1) kept away from both ends."""
    return u.clamp(0.5 * _TINY, 1.0 - _TINY)


def normal_quantile(u: Tensor) -> Tensor:
    """The standard normal's inverse distribution function."""
    import torch

    quantile: Tensor = torch.special.ndtri(inside(u))
    return quantile


def power_sigmas(steps: int, low: float, high: float, rho: float) -> Tensor:
    """(steps + 1,) levels that fall from ``high`` to ``low`` evenly in sigma^(1/rho), then 0 (Karras et al., eq. 5)."""
    import torch

    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return torch.cat([(top + ramp * (bottom - top)) ** rho, torch.zeros(1, dtype=torch.float64)]).float()

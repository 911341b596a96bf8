"""The Gaussian transitions of diffusion, in the coordinates x = x0 + sigma * noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def posterior(x: Tensor, estimate: Tensor, now: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, ...) and standard deviation of the noise level ``later`` given x at ``now`` and x0 = ``estimate``.

    Ho et al. 2020, equations 6 and 7, in these coordinates. ``now`` and ``later`` broadcast over x.
    """
    share = (later / now).square()
    return estimate + share * (x - estimate), later * (1 - share).sqrt()

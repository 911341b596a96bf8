"""The curvature of a loss at a small model's parameters, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

MOST = 2000  # parameters: the Hessian then takes 32 MB
_AT_ONCE = 32  # directions in one batched product: memory grows with them


def curvature(loss: Callable[[Tensor], Tensor], at: Tensor) -> Array:
    """(P,) eigenvalues of :func:`hessian`, ascending.

    Of a mean negative log-likelihood the first is α, the concavity of :func:`upturn.theory.contraction_rate`, where it
    is above 0. Raises ValueError as :func:`hessian` does.
    """
    return np.asarray(np.linalg.eigvalsh(hessian(loss, at)))


def hessian(loss: Callable[[Tensor], Tensor], at: Tensor) -> Array:
    """(P, P) float64 second derivatives of ``loss`` at the parameters ``at`` (P,), symmetric.

    By :func:`product` with one direction for each parameter, batched. Raises ValueError above 2,000 parameters.
    """
    import torch
    from torch.func import vmap

    if at.ndim != 1 or len(at) > MOST:
        raise ValueError(f"needs one vector of at most {MOST} parameters, not {tuple(at.shape)}")
    each = torch.eye(len(at), dtype=at.dtype, device=at.device)
    found = vmap(lambda direction: product(loss, at, direction), chunk_size=_AT_ONCE)(each).double().numpy(force=True)
    return np.asarray((found + found.T) / 2)


def product(loss: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor) -> Tensor:
    """(P,) the Hessian of ``loss`` at ``at`` times ``direction`` (P,): forward over reverse, torch.func."""
    from torch.func import grad, jvp

    found: Tensor = jvp(grad(loss), (at,), (direction,))[1]
    return found

"""The curvature of a loss at a small model's parameters, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from upturn.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 2000  # parameters: the Hessian then takes 32 MB


def curvature(loss: Callable[[Tensor], Tensor], at: Tensor) -> Array:
    """(P,) eigenvalues of the Hessian of ``loss`` at the parameters ``at`` (P,), ascending.

    Of a mean negative log-likelihood the first is α, the concavity of :func:`upturn.theory.contraction_rate`, where it
    is above 0. By Hessian-vector products (forward over reverse, torch.func), one for each parameter, batched.
    Raises ValueError above 2,000 parameters.
    """
    import torch
    from torch.func import grad, jvp, vmap

    if at.ndim != 1 or len(at) > _MOST:
        raise ValueError(f"needs one vector of at most {_MOST} parameters, not {tuple(at.shape)}")

    def product(direction: Tensor) -> Tensor:
        along: Tensor = jvp(grad(loss), (at,), (direction,))[1]
        return along

    rows = vmap(product)(torch.eye(len(at), dtype=at.dtype))
    found = rows.double().numpy(force=True)
    return np.asarray(np.linalg.eigvalsh((found + found.T) / 2))

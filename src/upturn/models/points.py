"""Diffusion of points: in the plane, or in any few dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from upturn.errors import UserError
from upturn.models._diffusion.class_conditional import ClassDiffusion
from upturn.models._diffusion.normalization import Frame
from upturn.types import Array, Kind


@dataclass(eq=False)
class Points(ClassDiffusion):
    """Diffusion of points (N, d) float32, in the plane or in any few dimensions.

    Points are centred a dimension and divided by one standard deviation for all, measured at ``build``.
    """

    formulation: str | dict[str, Any] = "edm"  # measured on 8 Gaussians: docs/decisions/
    dimensions: int | None = None  # None: as many as the examples have

    name: ClassVar[str] = "points"
    kind: ClassVar[Kind] = "points"

    def measure(self, content: Array) -> Frame:
        if content.ndim != 2 or self.dimensions not in {None, content.shape[1]}:
            raise UserError(
                f"the examples have shape {content.shape[1:]}, the model takes points of {self.dimensions or 'd'} "
                "numbers", where="model.dimensions", fix="Leave 'dimensions:' out.",
            )
        self.dimensions = content.shape[1]
        mean = content.mean(axis=0, dtype=np.float64)
        scale = float(np.sqrt(np.square(content - mean).mean())) or 1.0
        return Frame((content.shape[1],), tuple(mean.astype(np.float32).tolist()), scale, 1.0)

    def column(self, content: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(content, dtype=np.float32))

    def into(self, column: Tensor) -> Tensor:
        return self.frame.into(column)

    def content(self, generated: Tensor) -> Array:
        points: Array = generated.cpu().numpy()
        return points

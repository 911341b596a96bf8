"""A residual MLP, for points and the smallest images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from upturn.embeddings.unwrap import unwrapped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from upturn.diffusion.denoiser import Condition

_CLASS = "ResidualMlp"
_POINTS = 4  # dimensions up to which a row is a point: a network of few inputs learns sharp edges slowly without waves


@dataclass(frozen=True)
class Mlp:
    """Residual MLP, conditioned on noise level and class by shifts: for points and images of up to about 8x8.

    An image is seen as a vector, so nothing is shared between places: above 8x8 take ``unet``.
    """

    width: int | None = None  # None: 64 for points, 256 for images; measured, docs/decisions/
    depth: int = 2  # blocks of two linear layers; 3 and 4 gained nothing in the same time
    embedding: int = 64  # width of the condition: noise level and class
    waves: int | None = None  # sines and cosines of each input at 1, 2, 4, … radians per unit (None: 3 for points)

    folder: ClassVar[str] = "mlp"

    def __post_init__(self) -> None:
        if min(self.depth, self.embedding) < 1 or (self.width is not None and self.width < 1):
            raise ValueError("mlp: width, depth and embedding must be at least 1")
        if self.waves is not None and self.waves < 0:
            raise ValueError("mlp: waves cannot be below 0")

    def make(self, shape: tuple[int, ...], classes: int, noise_range: tuple[float, float]) -> nn.Module:
        low, high = noise_range
        points = math.prod(shape) <= _POINTS
        width = self.width if self.width is not None else (64 if points else 256)
        waves = self.waves if self.waves is not None else (3 if points else 0)
        return self.from_config({
            "shape": list(shape), "classes": classes, "width": width, "depth": self.depth,
            "embedding": self.embedding, "waves": waves, "noise_low": low, "noise_high": high,
        })

    def call(self, module: nn.Module, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        out: Tensor = module(x, noise, condition["label"])
        return out

    def config(self, module: nn.Module) -> Mapping[str, Any]:
        from upturn.diffusion.networks._residual import ResidualMlp

        inner = unwrapped(module)
        assert isinstance(inner, ResidualMlp)
        return {"_class_name": _CLASS, **inner.settings}

    def from_config(self, config: Mapping[str, Any]) -> nn.Module:
        from upturn.diffusion.networks._residual import ResidualMlp

        fields = {name: value for name, value in config.items() if not name.startswith("_")}
        return ResidualMlp(**{**fields, "shape": tuple(fields["shape"])})

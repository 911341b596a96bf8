"""A residual MLP, for points and the smallest pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from upturn.diffusion.denoiser import bare

if TYPE_CHECKING:
    from torch import Tensor, nn

_CLASS = "ResidualMlp"


@dataclass(frozen=True)
class Mlp:
    """Residual MLP, conditioned on noise level and class by shifts: for points and pictures of up to about 8x8.

    A picture is seen as a vector, so nothing is shared between places: above 8x8 take ``unet``.
    """

    width: int = 256
    depth: int = 4  # blocks of two linear layers
    embedding: int = 64  # width of the condition: noise level and class

    folder: ClassVar[str] = "mlp"

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.embedding) < 1:
            raise ValueError("mlp: width, depth and embedding must be at least 1")

    def make(self, shape: tuple[int, ...], classes: int, noise_range: tuple[float, float]) -> nn.Module:
        low, high = noise_range
        return self.from_config({
            "shape": list(shape), "classes": classes, "width": self.width, "depth": self.depth,
            "embedding": self.embedding, "noise_low": low, "noise_high": high,
        })

    def call(self, module: nn.Module, x: Tensor, noise: Tensor, label: Tensor) -> Tensor:
        out: Tensor = module(x, noise, label)
        return out

    def config(self, module: nn.Module) -> Mapping[str, Any]:
        from upturn.diffusion.networks._residual import ResidualMlp

        inner = bare(module)
        assert isinstance(inner, ResidualMlp)
        return {"_class_name": _CLASS, **inner.settings}

    def from_config(self, config: Mapping[str, Any]) -> nn.Module:
        from upturn.diffusion.networks._residual import ResidualMlp

        fields = {name: value for name, value in config.items() if not name.startswith("_")}
        return ResidualMlp(**{**fields, "shape": tuple(fields["shape"])})

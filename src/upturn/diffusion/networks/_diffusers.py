"""The residual MLP as a class of ``diffusers``, for whoever opens a saved one there; importing it costs seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from upturn.diffusion.networks import _residual

if TYPE_CHECKING:
    _Base: Any = object
else:
    _Base = type("_Base", (ModelMixin, ConfigMixin, _residual.ResidualMlp), {})


class ResidualMlp(_Base):
    """``ResidualMlp.from_pretrained(folder / "mlp")`` opens what a model saved; ``save_pretrained`` writes the same."""

    @register_to_config
    def __init__(
        self, shape: list[int], classes: int, width: int, depth: int, embedding: int, noise_low: float,
        noise_high: float,
    ) -> None:
        _residual.ResidualMlp.__init__(self, tuple(shape), classes, width, depth, embedding, noise_low, noise_high)

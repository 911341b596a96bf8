"""The residual MLP as a class of ``diffusers``, which opens a saved one; importing it takes seconds."""

from __future__ import annotations

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from upturn.diffusion.networks import _residual


class ResidualMlp(_residual.ResidualMlp, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """``ResidualMlp.from_pretrained(folder / "mlp")`` opens what a model saved; ``save_pretrained`` writes the same."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self, shape: list[int], classes: int, width: int, depth: int, embedding: int, waves: int,
        noise_low: float, noise_high: float,
    ) -> None:
        super().__init__(tuple(shape), classes, width, depth, embedding, waves, noise_low, noise_high)

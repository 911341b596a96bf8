"""The U-Net of ``diffusers``, for images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from upturn.embeddings.unwrap import unwrapped
from upturn.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from upturn.diffusion.denoiser import Condition

_CLASS = "UNet2DModel"


@dataclass(frozen=True)
class Unet:
    """UNet2DModel of diffusers, from 16x16 up; classes through its class embeddings, the last of them "no class".

    The saved folder is one that ``UNet2DModel.from_pretrained`` opens.
    """

    channels: list[int] = field(default_factory=lambda: [32, 64, 128])  # one per level; half the size at each next one
    layers: int = 1  # residual layers per level; diffusers has 2
    attention: int = 1  # how many of the lowest levels attend: Ho et al. 2020 at 16x16, the lowest but one at 32x32
    head_dim: int = 8  # diffusers' own
    groups: int = 8  # of group norm; must divide every number of channels
    dropout: float = 0.0

    folder: ClassVar[str] = "unet"

    def __post_init__(self) -> None:
        if not self.channels or any(c < 1 or c % self.groups for c in self.channels):
            raise ValueError(f"unet: each of channels {self.channels} must be a multiple of groups ({self.groups})")
        if not 0 <= self.attention <= len(self.channels):
            raise ValueError(f"unet: attention must be between 0 and the {len(self.channels)} levels")

    def make(self, shape: tuple[int, ...], classes: int, noise_range: tuple[float, float]) -> nn.Module:
        levels = len(self.channels)
        if len(shape) != 3 or shape[1] % 2 ** (levels - 1):
            raise UserError(
                f"a U-Net of {levels} levels needs square images whose size is a multiple of {2 ** (levels - 1)}, "
                f"got {'x'.join(map(str, shape))}", where="network",
                fix="Give fewer 'channels:', or take the network 'mlp' for points and 8x8 images.",
            )
        attends = [level >= levels - self.attention for level in range(levels)]
        return self.from_config({
            "sample_size": shape[1], "in_channels": shape[0], "out_channels": shape[0],
            "block_out_channels": list(self.channels), "layers_per_block": self.layers,
            "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
            "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
            "attention_head_dim": self.head_dim, "norm_num_groups": self.groups, "dropout": self.dropout,
            "add_attention": self.attention > 0, "num_class_embeds": classes + 1 if classes else None,
        })

    def call(self, module: nn.Module, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        import torch

        settings: Any = unwrapped(module).config
        last = settings.num_class_embeds
        label = condition["label"]
        rows = torch.where(label < 0, last - 1, label) if last else None
        out: Tensor = module(x, noise, class_labels=rows, return_dict=False)[0]
        return out

    def config(self, module: nn.Module) -> Mapping[str, Any]:
        settings: Any = unwrapped(module).config
        kept = {name: value for name, value in dict(settings).items() if not name.startswith("_")}
        return {"_class_name": _CLASS, **kept}

    def from_config(self, config: Mapping[str, Any]) -> nn.Module:
        from diffusers.models.unets.unet_2d import UNet2DModel

        made: nn.Module = UNet2DModel(**{name: value for name, value in config.items() if not name.startswith("_")})
        return made

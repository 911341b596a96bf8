"""How a text-to-image model is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from upturn.models._diffusion_sampling import DiffusionSampling


@dataclass(frozen=True)
class TextToImageSampling(DiffusionSampling):
    """``guidance`` leads away from the picture without a caption, or from the caption ``negative``."""

    negative: str = ""
    batch: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative and (self.guidance == 1.0 or self.guide):
            raise ValueError("negative does nothing at guidance 1 or with a 'guide'; give guidance, for instance 5")

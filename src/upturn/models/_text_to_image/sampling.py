"""How a text-to-image model is sampled."""

from __future__ import annotations

from dataclasses import dataclass

from upturn.models._diffusion.sampling import DiffusionSampling


@dataclass(frozen=True)
class TextToImageSampling(DiffusionSampling):
    """``guidance`` is relative to no caption, or to the caption ``negative``.

    ``width`` and ``height`` are pixels; preferably a size that the model was trained on.
    """

    negative: str = ""
    width: int | None = None  # pixels, both or none; None: the model's own square
    height: int | None = None
    batch: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.width is None) != (self.height is None):
            raise ValueError("give both of width and height, or none")
        if self.width is not None and self.height is not None and min(self.width, self.height) < 1:
            raise ValueError(f"width and height must be 1 or more, got {self.width} and {self.height}")
        if self.negative and (self.guidance == 1.0 or self.guide):
            raise ValueError("negative does nothing at guidance 1 or with a 'guide'; give guidance, for instance 5")

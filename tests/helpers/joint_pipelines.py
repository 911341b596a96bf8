"""A pipeline whose denoiser and text encoders train together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.textual_inversion_cases import fresh, pictures


def joint(folder: Path) -> Any:
    """With the text encoders training."""
    model = fresh(folder)
    model.train_text = True
    model.build(pictures(), key=1)
    return model

"""scikit-learn's handwritten digits: the pictures that need no download."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from upturn.data.sources._common import Rows, check_fraction, divide
from upturn.data.sources._degrade import degraded
from upturn.data.split import content_keys, shares, split_by_content
from upturn.types import Array, Kind, Prompt, Splits, objects

_DEEPEST = 16  # the data set's grey levels run from 0 to 16


@dataclass(frozen=True)
class Digits:
    """1,797 handwritten digits of 8×8 grey pixels (UCI Optical Recognition, inside scikit-learn).

    Content (N, size, size, 1) uint8; prompts "digit 3" with label 3; ``fields["quality"]`` is "clean" or "degraded".

    degraded  share of the train part whose picture is spoilt (moved, blurred, partly hidden, noisy); which ones, and
              how, depends on the picture alone, so it is the same in every run. Held-out pictures are always clean
    size      side in pixels; above 8 the picture is enlarged (bicubic)
    held_out  share that training never sees (binomial, so about that share of each class)
    """

    kind: ClassVar[Kind] = "image"

    degraded: float = 0.0
    size: Literal[8, 16, 32, 64] = 8
    held_out: float = 0.25

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        if not 0.0 <= self.degraded <= 1.0:
            raise ValueError(f"degraded must lie in [0, 1], not {self.degraded}")

    def load(self) -> Splits:
        """Reads the pictures from scikit-learn's own files."""
        pixels, labels = _pictures()
        content = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / _DEEPEST)).astype(np.uint8)
        keys = content_keys("image", content)
        spoilt = ~split_by_content(keys, self.held_out) & (shares(keys, purpose="degraded") < self.degraded)
        if spoilt.any():
            own = np.array([int(key, 16) >> 1 for key in keys[spoilt]], dtype=np.int64)
            content[spoilt] = degraded(content[spoilt], own)
        known = [Prompt(text=f"digit {digit}", label=digit) for digit in range(10)]
        quality = objects(["degraded" if bad else "clean" for bad in spoilt])
        rows = Rows("image", _enlarged(content, self.size), [known[i] for i in labels], keys, {"quality": quality})
        notes = [f"{int(spoilt.sum()):,} of the train pictures are degraded"] if spoilt.any() else []
        return divide(rows, self.held_out, "digits", classes=[str(digit) for digit in range(10)], notes=notes)


def _pictures() -> tuple[Array, Array]:
    """(1797, 64) grey levels 0 to 16 and (1797,) classes, as ``sklearn.datasets.load_digits`` gives them.

    The file is read where it lies: importing scikit-learn takes 3 s, a twentieth of the demo.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(labels)


def _enlarged(content: Array, size: int) -> Array:
    if size == content.shape[1]:
        return content
    from PIL import Image

    side, way = (size, size), Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(picture[..., 0]).resize(side, way)) for picture in content])[..., None]

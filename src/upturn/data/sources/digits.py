"""scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from upturn.data.sources._common import Rows, check_fraction, divide
from upturn.data.sources._image_degradation import degraded
from upturn.data.split import content_keys, shares, split_by_content
from upturn.protocols import Source
from upturn.types import Array, Kind, Prompt, Splits, objects

_DEEPEST = 16  # the data set's grey levels run from 0 to 16


@dataclass(frozen=True)
class Digits(Source):
    """1,797 handwritten digits of 8×8 grey pixels (UCI Optical Recognition, inside scikit-learn).

    Content (N, size, size, 1) uint8; prompts "digit 3" with label 3; ``fields["quality"]`` is "clean" or "degraded".

    degraded  share of the train part whose image is degraded (shifted, blurred, partly hidden, noisy); which ones, and
              how, depends on the image alone, so it is the same in every run. Held-out images are always clean
    size      side in pixels; above 8 the image is enlarged (bicubic)
    held_out  share that training never sees (binomial, so about that share of each class)
    rare      a class of which only so many training images stay that it has ``rare_share`` of them; which ones
              follows from the images alone. Held-out images all stay. ``fields["rare"]`` is then "yes" or "no"
    """

    kind: ClassVar[Kind] = "image"

    degraded: float = 0.0
    size: Literal[8, 16, 32, 64] = 8
    held_out: float = 0.25
    rare: int | None = None
    rare_share: float = 0.05

    def __post_init__(self) -> None:
        check_fraction(self.held_out)
        if not 0.0 <= self.degraded <= 1.0:
            raise ValueError(f"degraded must lie in [0, 1], not {self.degraded}")
        if self.rare is not None and not 0 <= self.rare <= 9:
            raise ValueError(f"rare must be a digit from 0 to 9, not {self.rare}")
        if not 0.0 < self.rare_share < 1.0:
            raise ValueError(f"rare_share must lie between 0 and 1, not {self.rare_share}")

    def load(self) -> Splits:
        """Reads the images from scikit-learn's own files."""
        pixels, labels = _digit_images()
        content = np.rint(pixels.reshape(-1, 8, 8, 1) * (255 / _DEEPEST)).astype(np.uint8)
        keys = content_keys("image", content)
        train = ~split_by_content(keys, self.held_out)
        spoilt = train & (shares(keys, purpose="degraded") < self.degraded)
        if spoilt.any():
            own = np.array([int(key, 16) >> 1 for key in keys[spoilt]], dtype=np.int64)
            content[spoilt] = degraded(content[spoilt], own)
        known = [Prompt(text=f"digit {digit}", label=digit) for digit in range(10)]
        fields = {"quality": objects(["degraded" if bad else "clean" for bad in spoilt])}
        left_out, notes = np.zeros(len(labels), dtype=bool), []
        if self.rare is not None:
            fields["rare"] = objects(["yes" if label == self.rare else "no" for label in labels])
            own = train & (labels == self.rare)
            left_out = _beyond(own, int(train.sum() - own.sum()), keys, self.rare_share)
            share = (own & ~left_out).sum() / (train & ~left_out).sum()
            notes.append(f"digit {self.rare} is rare: {int(left_out.sum()):,} of its {int(own.sum()):,} train images "
                         f"are left out, the others are {share:.1%} of the train part")
        if (spoilt & ~left_out).any():
            notes.insert(0, f"{int((spoilt & ~left_out).sum()):,} of the train images are degraded")
        stays = np.flatnonzero(~left_out)
        rows = Rows("image", _enlarged(content[stays], self.size), [known[labels[i]] for i in stays], keys[stays],
                    {name: column[stays] for name, column in fields.items()})
        return divide(rows, self.held_out, "digits", classes=[str(digit) for digit in range(10)], notes=notes)


def _beyond(own: Array, others: int, keys: Array, share: float) -> Array:
    """(N,) bool: which of the ``own`` rows, in an order that their keys alone make, are more than this share."""
    rows = np.flatnonzero(own)
    order = rows[np.argsort(shares(keys[rows], purpose="rare"), kind="stable")]
    beyond = np.zeros(len(own), dtype=bool)
    beyond[order[max(1, round(share / (1 - share) * others)) :]] = True
    return beyond


def _digit_images() -> tuple[Array, Array]:
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
    return np.stack([np.asarray(Image.fromarray(image[..., 0]).resize(side, way)) for image in content])[..., None]

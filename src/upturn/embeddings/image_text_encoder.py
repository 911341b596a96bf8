"""The dual encoder of a component: vectors of images and of texts in one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from upturn.errors import UserError
from upturn.protocols import Component, Tools
from upturn.types import Array, Samples


@runtime_checkable
class ImageTextEncoder(Protocol):
    """Capability of a model: vectors of images and of texts in one space.

    ``scale`` times a cosine is a logit of the model's own probabilities."""

    id: str

    @property
    def scale(self) -> float: ...
    def images(self, content: Array) -> Array:
        """(N, D) float32 of unit length, of (N, H, W, C) uint8."""
        ...

    def texts(self, texts: Sequence[str]) -> Array:
        """(N, D) float32 of unit length."""
        ...


@dataclass
class Encoded(Component):
    """Base of components with a dual encoder; exactly one of the fields names it.

    model   one of the recipe's models
    folder  of any dual encoder of ``transformers``: CLIP, SigLIP, AltCLIP, …
    hub     its name on the hub; the local cache is used first
    """

    model: str | None = None
    folder: str | None = None
    hub: str | None = None
    _opened: ImageTextEncoder | None = field(default=None, init=False, repr=False, compare=False)

    several_sizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.model, self.folder, self.hub)) != 1:
            raise ValueError("give exactly one of 'model' (a dual_encoder of the recipe), 'folder' and 'hub'")

    @property
    def models_used(self) -> tuple[str, ...]:
        return () if self.model is None else (self.model,)

    def encoder(self, tools: Tools) -> ImageTextEncoder:
        """UserError where the model is no dual encoder, or files cannot be read as one."""
        if self.model is not None:
            return as_dual(tools.model(self.model), self.model)
        if self._opened is None:
            source = {"folder": self.folder} if self.folder is not None else {"hub": str(self.hub)}
            self._opened = as_dual(tools.pretrained("dual_encoder", source), "dual_encoder")
        return self._opened


def as_dual(model: Any, name: str) -> ImageTextEncoder:
    """The model, if it has vectors of images and of texts."""
    if not isinstance(model, ImageTextEncoder):
        raise UserError(f"the model '{name}' has no vectors of images and texts", where=f"model: {name}",
                        fix="Name a 'dual_encoder'.")
    return model


def require_images(samples: Samples, what: str) -> None:
    if samples.kind != "image":
        raise UserError(f"'{what}' reads images, and these samples are {samples.kind}", where=what)


def own_cosines(encoder: ImageTextEncoder, samples: Samples) -> Array:
    """(N,) float64 cosine of each image and its prompt's text, NaN where that is empty."""
    texts = [prompt.text for prompt in samples.prompts]
    distinct, rows = np.unique(np.array(texts, dtype=object).astype(str), return_inverse=True)
    vectors = encoder.texts([str(text) for text in distinct])
    found = np.einsum("nd,nd->n", encoder.images(samples.content), vectors[rows.reshape(-1)]).astype(np.float64)
    has_text = np.array([bool(text.strip()) for text in texts])
    return np.where(has_text & np.isfinite(found), found, np.nan)

"""A denoiser and the text encoders that train with it, as one module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from upturn.embeddings.unwrap import unwrapped

if TYPE_CHECKING:
    from diffusers import ModelMixin

Read = Mapping[str, Tensor]  # what text encoders compute from captions: row-level tensors (N, …) by name


class Conditioning(Protocol):
    """How an architecture reads captions with a text encoder, and calls its denoiser with the result."""

    @property
    def denoiser(self) -> str:
        """The component that removes noise, by name."""
        ...


    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read: ...
    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor: ...


class Joint(nn.Module):
    """A denoiser and the text encoders that train with it: one forward pass, so that a wrapper sees all gradients."""

    def __init__(
        self, family: Conditioning, factor: int, denoiser: nn.Module, encoders: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"parts": [family.denoiser, *sorted(encoders)]}
        self.family, self.factor = family, factor
        self.denoiser = denoiser
        for name, encoder in sorted(encoders.items()):
            self.add_module(name, encoder)

    def trained(self) -> dict[str, nn.Module]:
        """The text encoders, by name."""
        return {name: getattr(self, name) for name in self.settings["parts"][1:]}

    def forward(
        self, text: Read, tokens: Mapping[str, Read], x: Tensor | None = None, time: Tensor | None = None,
        spoken: Tensor | None = None,
    ) -> Any:
        """F(x; time), or, without x, what the encoders compute from the tokens alone.

        ``spoken`` (N,) is 0 where zeros replace the text.
        """
        encoded: dict[str, Tensor] = {}
        for name, part in tokens.items():
            encoded.update(self.family.read(name, getattr(self, name), part))
        if spoken is not None:
            encoded = {key: value * spoken.reshape(-1, *[1] * (value.ndim - 1)) for key, value in encoded.items()}
        if x is None or time is None:
            return encoded
        return self.family.denoise(self.denoiser, x, time, {**text, **encoded}, self.factor)


def trained_encoders(module: nn.Module) -> dict[str, nn.Module]:
    """The text encoders that train with the denoiser, by name."""
    inner = unwrapped(module)
    return inner.trained() if isinstance(inner, Joint) else {}


def denoiser_of(module: nn.Module) -> ModelMixin:
    """The denoiser itself, out of wrappers and of a joint module."""
    inner: Any = unwrapped(module)
    return inner.denoiser if isinstance(inner, Joint) else inner

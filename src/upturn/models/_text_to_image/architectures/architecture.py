"""The differences between text-to-image pipelines: text encoding and the call of the denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from upturn.diffusion.joint import Read

if TYPE_CHECKING:
    from diffusers.configuration_utils import FrozenDict
    from transformers import PreTrainedTokenizerBase


class Family(ABC):
    """Pipelines of one architecture. An instance knows the flags of one ``model_index.json``."""

    pipelines: ClassVar[tuple[str, ...]]  # classes of diffusers
    denoiser: ClassVar[str]  # the component that removes noise, also its folder
    components: ClassVar[Mapping[str, tuple[str, ...]]]  # the classes that each component may have
    optional: ClassVar[frozenset[str]] = frozenset()  # components that may be null
    trains: ClassVar[tuple[str, ...]]  # text encoders that can be trained with the denoiser
    inverts: ClassVar[tuple[str, ...]] = ()  # text encoders that can learn new tokens, and that diffusers loads them to
    time: ClassVar[Literal["logit_normal", "uniform"]] = "logit_normal"  # how training draws times of a flow
    last: ClassVar[Literal["table", "even"]] = "table"  # where sampling of a flow ends
    shifts: ClassVar[bool] = False  # whether latents are moved by the autoencoder's shift_factor
    patch: ClassVar[int] = 1  # latents a side that make one token, where the denoiser's config does not say
    zeroed: bool = False  # no caption is zeros, not the empty text

    def __init__(self, index: Mapping[str, Any]) -> None:
        self.index = dict(index)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Text encoders, in the order of the pipeline."""
        return tuple(name for name in self.components if name.startswith("text_encoder"))

    def check(self, configs: Mapping[str, Mapping[str, Any]]) -> str:
        """What is unsupported in these components' config.json; empty where nothing is."""
        return ""

    def most(self, config: FrozenDict) -> int:
        """Latents a side that the denoiser has places for; 0: any number."""
        return 0

    @abstractmethod
    def tokens(self, name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Read:
        """The inputs of one encoder: "ids" (N, L) and others."""

    @abstractmethod
    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read:
        """The outputs of one encoder, under names that no other encoder uses."""

    def absent(self, name: str, denoiser: nn.Module, rows: int) -> Read:
        """The substitute for the outputs of an encoder that the pipeline leaves out."""
        raise ValueError(f"{name} cannot be left out")

    @abstractmethod
    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor:
        """F(x (N, C, h, w), time (N,) as the pipeline counts it, N rows of text; ``factor`` pixels a latent)."""


def padded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int) -> Read:
    """Ids and mask, (N, length) each, cut and padded as pipelines do."""
    found = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return {"ids": found["input_ids"], "mask": found["attention_mask"]}


def clip_length(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.model_max_length)


def hidden(encoder: nn.Module, tokens: Read) -> tuple[Tensor, Tensor]:
    """CLIP's last layer but one, and its first output (with a projection: the embedding of the whole text)."""
    out = encoder(tokens["ids"], output_hidden_states=True)
    return out.hidden_states[-2], out[0]


def joined(parts: Sequence[Tensor], width: int) -> Tensor:
    """Side by side, zeros up to ``width``."""
    every = torch.cat(list(parts), dim=-1)
    return nn.functional.pad(every, (0, width - every.shape[-1]))

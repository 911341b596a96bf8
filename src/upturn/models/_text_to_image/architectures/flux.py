"""Flux: a transformer over packed latents and T5's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from upturn.diffusion.joint import Read
from upturn.embeddings.unwrap import unwrapped
from upturn.models._text_to_image.architectures.architecture import Family, clip_length, padded
from upturn.models._text_to_image.architectures.stable_diffusion import VAES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_T5_TOKENS = 512  # the pipeline's own max_sequence_length
_TIMES = 1000.0  # its transformer counts time from 0 to 1
_GUIDANCE = 3.5  # the guidance input of a guidance-distilled model: diffusers' default in training and sampling


class Flux(Family):
    """Black Forest Labs 2024. Distilled guidance ("guidance_embeds") is 3.5; the sampler's guidance is added."""

    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    denoiser: ClassVar[str] = "transformer"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("FluxTransformer2DModel",), "vae": VAES, "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",), "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("T5Tokenizer", "T5TokenizerFast"),
    }
    trains: ClassVar[tuple[str, ...]] = ("text_encoder",)
    inverts: ClassVar[tuple[str, ...]] = ("text_encoder",)
    time: ClassVar[Literal["logit_normal", "uniform"]] = "uniform"  # as diffusers' training example, "none"
    last: ClassVar[Literal["table", "even"]] = "even"
    shifts: ClassVar[bool] = True
    patch: ClassVar[int] = 2

    def check(self, configs: Mapping[str, Mapping[str, Any]]) -> str:
        config = configs["transformer"]
        if config.get("out_channels") not in (None, config.get("in_channels", 64)):
            return f"a transformer of {config.get('in_channels')} channels in and {config['out_channels']} out"
        return ""

    def tokens(self, name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Read:
        return padded(tokenizer, texts, clip_length(tokenizer) if name == "text_encoder" else _T5_TOKENS)

    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read:
        out = encoder(tokens["ids"])
        return {"pooled": out.pooler_output} if name == "text_encoder" else {"hidden": out[0]}

    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor:
        rows, _, high, wide = x.shape
        config: Any = unwrapped(denoiser).config
        guidance = x.new_full((rows,), _GUIDANCE) if config.guidance_embeds else None
        words = text["hidden"]
        out = denoiser(
            hidden_states=_packed(x), timestep=time / _TIMES, guidance=guidance, pooled_projections=text["pooled"],
            encoder_hidden_states=words, txt_ids=words.new_zeros(words.shape[1], 3),
            img_ids=_places(high // 2, wide // 2, x), return_dict=False,
        )[0]
        return _unpacked(out, high, wide)


def _packed(x: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h/2 * w/2, 4 C): a token is the 2 x 2 latents of each channel."""
    rows, channels, high, wide = x.shape
    squares = x.reshape(rows, channels, high // 2, 2, wide // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(rows, high // 2 * (wide // 2), 4 * channels)


def _unpacked(tokens: Tensor, high: int, wide: int) -> Tensor:
    rows, _, width = tokens.shape
    squares = tokens.reshape(rows, high // 2, wide // 2, width // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(rows, width // 4, high, wide)


def _places(high: int, wide: int, like: Tensor) -> Tensor:
    """(high * wide, 3): 0, row, column of each token."""
    row, column = torch.meshgrid(
        torch.arange(high, device=like.device), torch.arange(wide, device=like.device), indexing="ij"
    )
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3).to(like.dtype)

"""Stable Diffusion 3: a transformer over latents and the words of two CLIPs and T5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from upturn.diffusion.joint import Read
from upturn.models._text_to_image.architectures.architecture import Family, clip_length, hidden, joined, padded
from upturn.models._text_to_image.architectures.stable_diffusion import VAES

if TYPE_CHECKING:
    from diffusers.configuration_utils import FrozenDict
    from transformers import PreTrainedTokenizerBase

_T5_TOKENS = 256  # the pipeline's own max_sequence_length
_CLIPS = ("text_encoder", "text_encoder_2")


class StableDiffusion3(Family):
    """Esser et al. 2024. T5 may be left out: then zeros replace its words, as in the pipeline."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    denoiser: ClassVar[str] = "transformer"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("SD3Transformer2DModel",), "vae": VAES,
        "text_encoder": ("CLIPTextModelWithProjection",), "text_encoder_2": ("CLIPTextModelWithProjection",),
        "text_encoder_3": ("T5EncoderModel",), "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"), "tokenizer_3": ("T5Tokenizer", "T5TokenizerFast"),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"text_encoder_3", "tokenizer_3"})
    trains: ClassVar[tuple[str, ...]] = _CLIPS
    shifts: ClassVar[bool] = True

    def most(self, config: FrozenDict) -> int:
        return int(config.pos_embed_max_size * config.patch_size)

    def tokens(self, name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Read:
        return padded(tokenizer, texts, clip_length(tokenizer) if name in _CLIPS else _T5_TOKENS)

    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read:
        if name in _CLIPS:
            words, whole = hidden(encoder, tokens)
            return {f"hidden:{name}": words, f"pooled:{name}": whole}
        return {f"hidden:{name}": encoder(tokens["ids"])[0]}

    def absent(self, name: str, denoiser: nn.Module, rows: int) -> Read:
        config: Any = denoiser.config
        return {f"hidden:{name}": torch.zeros(rows, _T5_TOKENS, config.joint_attention_dim)}

    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor:
        rest = text["hidden:text_encoder_3"]
        words = joined([text[f"hidden:{name}"] for name in _CLIPS], rest.shape[-1])
        out: Tensor = denoiser(
            hidden_states=x, timestep=time, encoder_hidden_states=torch.cat([words, rest], dim=1),
            pooled_projections=torch.cat([text[f"pooled:{name}"] for name in _CLIPS], dim=-1), return_dict=False,
        )[0]
        return out

"""Stable Diffusion 1.x, 2.x and XL: a U-Net that attends to CLIP's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from upturn.diffusion.joint import Read
from upturn.models._text_to_image.architectures.architecture import Family, clip_length, hidden, padded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VAES = ("AutoencoderKL", "AutoencoderTiny")
_HIDDEN = ("hidden:text_encoder", "hidden:text_encoder_2")  # the outputs of XL's encoders, in the order of its U-Net
_SIZES = 6  # numbers of an image that XL's U-Net takes: original size, crop and target


def _odd_unet(unet: Mapping[str, Any], added: str | None) -> str:
    latents = unet.get("in_channels", 4)
    if unet.get("out_channels", latents) != latents:
        return (
            f"a U-Net of {latents} channels in and {unet.get('out_channels')} out: "
            f"{'one for inpainting' if latents > unet.get('out_channels', 4) else 'one that learns its variance'}"
        )
    for key, usual in (
        ("time_cond_proj_dim", None), ("class_embed_type", None), ("encoder_hid_dim_type", None),
        ("addition_embed_type", added),
    ):
        if unet.get(key) != usual:
            return f"a U-Net with {key}: {unet.get(key)!r}"
    return ""


class StableDiffusion(Family):
    """Rombach et al. 2022; the text is CLIP's last hidden state."""

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    denoiser: ClassVar[str] = "unet"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "unet": ("UNet2DConditionModel",), "vae": VAES, "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    }
    trains: ClassVar[tuple[str, ...]] = ("text_encoder",)
    inverts: ClassVar[tuple[str, ...]] = ("text_encoder",)

    def check(self, configs: Mapping[str, Mapping[str, Any]]) -> str:
        return _odd_unet(configs["unet"], None)

    def tokens(self, name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Read:
        return padded(tokenizer, texts, clip_length(tokenizer))

    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read:
        config: Any = encoder.config
        mask = tokens["mask"] if getattr(config, "use_attention_mask", False) else None
        return {"hidden": encoder(tokens["ids"], attention_mask=mask)[0]}

    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor:
        out: Tensor = denoiser(x, time, encoder_hidden_states=text["hidden"], return_dict=False)[0]
        return out


class StableDiffusionXl(Family):
    """Podell et al. 2023: two encoders side by side; the second's embedding and the image's size are added to the time.

    The first encoder may be left out, as in the pipeline. An image is described as uncropped and in its own size:
    original size, crop and target are (height, width), (0, 0) and (height, width), the pipeline's defaults.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline",)
    denoiser: ClassVar[str] = "unet"
    components: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "unet": ("UNet2DConditionModel",), "vae": VAES, "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("CLIPTextModelWithProjection",), "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
    }
    optional: ClassVar[frozenset[str]] = frozenset({"text_encoder", "tokenizer"})
    trains: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")
    inverts: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    def __init__(self, index: Mapping[str, Any]) -> None:
        super().__init__(index)
        self.zeroed = bool(index.get("force_zeros_for_empty_prompt", True))

    def check(self, configs: Mapping[str, Mapping[str, Any]]) -> str:
        unet, pooled = configs["unet"], configs["text_encoder_2"].get("projection_dim", 0)
        inputs = (unet.get("projection_class_embeddings_input_dim") or 0) - pooled
        each = unet.get("addition_time_embed_dim")
        if each and inputs != _SIZES * each:
            return f"a U-Net that takes {inputs / each:g} numbers of an image, not its {_SIZES} sizes (a refiner)"
        return _odd_unet(unet, "text_time")

    def tokens(self, name: str, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Read:
        return padded(tokenizer, texts, clip_length(tokenizer))

    def absent(self, name: str, denoiser: nn.Module, rows: int) -> Read:
        return {}

    def read(self, name: str, encoder: nn.Module, tokens: Read) -> Read:
        words, whole = hidden(encoder, tokens)
        return {f"hidden:{name}": words} if whole.ndim == 3 else {f"hidden:{name}": words, "pooled": whole}

    def denoise(self, denoiser: nn.Module, x: Tensor, time: Tensor, text: Read, factor: int) -> Tensor:
        words = torch.cat([text[key] for key in _HIDDEN if key in text], dim=-1)
        high, wide = (factor * side for side in x.shape[-2:])
        sizes = words.new_tensor([high, wide, 0, 0, high, wide]).expand(len(x), -1)
        out: Tensor = denoiser(
            x, time, encoder_hidden_states=words, return_dict=False,
            added_cond_kwargs={"text_embeds": text["pooled"], "time_ids": sizes},
        )[0]
        return out

"""A small text-to-image pipeline trained from scratch: a Stable Diffusion XL of pixels with its own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from upturn.errors import UserError
from upturn.models._text_to_image.architectures.stable_diffusion import StableDiffusionXl
from upturn.models._text_to_image.pipeline import Pipeline, quiet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BOS, _EOS, _END = "<|startoftext|>", "<|endoftext|>", "</w>"  # CLIP's own
_GROUPS = 8  # of group norm
_TINY = 2.0**-7  # of the autoencoder's codes: its decoder is nonlinear for large values, here by 2e-6 of the pixel
_COLOURS = 3
_READER = "text_encoder_2"  # the one of XL's text encoders whose embedding of the whole text is added to the time
_SIZE_WIDTH, _SIZES = 8, 6  # width of each size embedding, and the number of XL's size inputs; constant here


@dataclass(frozen=True)
class Small:
    """``config:`` of text_to_image: sizes of a U-Net and a CLIP text encoder, trained together from random weights.

    The embedding of the whole caption is added to the time's and scales every residual layer (as in XL,
    and the adaptive norms of Dhariwal & Nichol 2021): the model learns to use it within minutes, but not attention to
    the words alone (docs/decisions/).
    """

    channels: list[int] = field(default_factory=lambda: [32, 64, 128])  # a level each; half the size at each next one
    layers: int = 1  # residual layers a level; Stable Diffusion has 2
    attention: int = 1  # how many of the lowest levels attend to the words, beside the middle
    head_dim: int = 32
    text_width: int = 64
    text_layers: int = 2
    vocabulary: int = 1024  # tokens, every byte among them
    tokens: int = 32  # of a caption at most, its two ends counted
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"
    schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"

    def __post_init__(self) -> None:
        if not self.channels or any(c % _GROUPS or c % self.head_dim for c in self.channels):
            raise ValueError(f"each of channels {self.channels} must be a multiple of {_GROUPS} and of head_dim")
        if not 0 <= self.attention <= len(self.channels) or self.layers < 1:
            raise ValueError(f"attention lies between 0 and the {len(self.channels)} levels, layers is at least 1")
        if self.text_width % self.head_dim or self.text_layers < 1 or self.tokens < 3:
            raise ValueError("text_width must be a multiple of head_dim, text_layers at least 1, tokens at least 3")
        if self.vocabulary < 2 * 256 + 2:
            raise ValueError("vocabulary is at least 514: every byte, alone and at the end of a word, and two ends")


def build(small: Small, size: int, captions: Sequence[str]) -> Pipeline:
    """Random weights from torch's stream; the tokenizer from ``captions``, sorted and each once.

    Raises UserError where the size does not fit the levels.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    step = max(8, 2 ** (len(small.channels) - 1))
    if size % step:
        raise UserError(
            f"images of {size} pixels do not fit: the size must be a multiple of {step}", where="model.size",
            fix="16, 32 and 64 are quick; resize the data ('size:' of the source).",
        )
    tokenizer = _tokenizer(small, sorted(set(captions)))
    with quiet():
        encoder = CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=small.text_width, intermediate_size=4 * small.text_width,
            num_hidden_layers=small.text_layers, num_attention_heads=small.text_width // small.head_dim,
            max_position_embeddings=small.tokens, projection_dim=small.text_width, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        ))
        attends = [level >= len(small.channels) - small.attention for level in range(len(small.channels))]
        unet = UNet2DConditionModel(
            sample_size=size, in_channels=_COLOURS, out_channels=_COLOURS, block_out_channels=tuple(small.channels),
            layers_per_block=small.layers, norm_num_groups=_GROUPS, cross_attention_dim=small.text_width,
            attention_head_dim=tuple(c // small.head_dim for c in small.channels),  # diffusers' name for how many heads
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            resnet_time_scale_shift="scale_shift", addition_embed_type="text_time",
            addition_time_embed_dim=_SIZE_WIDTH,
            projection_class_embeddings_input_dim=_SIZES * _SIZE_WIDTH + small.text_width,
        )
    index = _index()
    return Pipeline(
        StableDiffusionXl(index), index, _scheduler(small), unet, _pixels(), {_READER: encoder}, {_READER: tokenizer}
    )


def _index() -> dict[str, Any]:
    return {
        "_class_name": StableDiffusionXl.pipelines[0], "force_zeros_for_empty_prompt": True,
        "feature_extractor": [None, None], "image_encoder": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": [None, None], "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": [None, None], "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderTiny"],
    }


def _scheduler(small: Small) -> dict[str, Any]:
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": small.schedule,
        "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": small.prediction, "clip_sample": False,
        "set_alpha_to_one": True, "timestep_spacing": "leading", "steps_offset": 1,
    }


def _tokenizer(small: Small, captions: Sequence[str]) -> PreTrainedTokenizerBase:
    """CLIP's kind of tokenizer: lowercase, byte pairs within words, trained on the captions; no text is unknown."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ends = [_BOS, _EOS]
    raw = CLIPTokenizer().backend_tokenizer
    raw.train_from_iterator(captions, trainers.BpeTrainer(
        vocab_size=max(small.vocabulary - len(alphabet), len(alphabet) + len(ends)), special_tokens=ends,
        initial_alphabet=alphabet, end_of_word_suffix=_END, show_progress=False,
    ))
    learned = json.loads(raw.to_str())["model"]
    whole = [token for token, _ in sorted(learned["vocab"].items(), key=lambda entry: entry[1])]
    vocabulary = [*alphabet, *(letter + _END for letter in alphabet)]
    known = set(vocabulary) | set(ends)
    vocabulary += [token for token in whole if token not in known]
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in learned["merges"]]
    numbers = {token: number for number, token in enumerate([*vocabulary[: small.vocabulary - len(ends)], *ends])}
    kept = [pair for pair in merges if pair[0] + pair[1] in numbers and pair[0] in numbers and pair[1] in numbers]
    return CLIPTokenizer(vocab=numbers, merges=kept, model_max_length=small.tokens)


def _pixels() -> nn.Module:
    """An autoencoder without loss: codes are pixels times a small number, rescaled by scaling_factor.

    Its decoder rectifies, so that a pixel goes through it as its positive and its negative part.
    """
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    wide = 2 * _COLOURS
    vae: Any = AutoencoderTiny(
        latent_channels=_COLOURS, scaling_factor=1 / _TINY, encoder_block_out_channels=(wide,),
        decoder_block_out_channels=(wide,), num_encoder_blocks=(0,), num_decoder_blocks=(0,),
    )
    layers: list[Any] = [*vae.encoder.layers, *vae.decoder.layers]
    first, last, opened, closed = (part for part in layers if isinstance(part, nn.Conv2d))
    assert last.bias is not None and closed.bias is not None
    eye = torch.eye(_COLOURS)
    with torch.no_grad():
        for convolution in (first, last, opened, closed):
            for parameter in convolution.parameters():
                parameter.zero_()
        first.weight[:_COLOURS, :, 1, 1] = eye  # sees (x + 1) / 2
        last.weight[:, :_COLOURS, 1, 1] = 2 * _TINY * eye
        last.bias.fill_(-_TINY)
        opened.weight[:, :, 1, 1] = torch.cat([eye, -eye])
        closed.weight[:, :, 1, 1] = torch.cat([eye, -eye], dim=1) / (2 * _TINY)
        closed.bias.fill_(0.5)  # 2 y - 1 follows
    vae.eval().requires_grad_(False)
    module: nn.Module = vae
    return module

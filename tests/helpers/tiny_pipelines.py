"""Tiny random diffusers pipelines, built from the library's configs and saved without any download."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = ["a", "red", "blue", "cat", "dog", "house", "of", "on", "the", "ugly"]
LENGTH = 16  # of CLIP's texts: shorter than 77, which changes nothing but speed
T5_WIDTH, CLIP_WIDTH, CLIP_2_WIDTH = 32, 32, 24


def clip_tokenizer() -> Any:
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=LENGTH)


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS] + [(chr(97 + i), -9.0) for i in range(26)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def clip(width: int = CLIP_WIDTH, projection: int | None = None, **more: Any) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=4, max_position_embeddings=LENGTH, projection_dim=projection or width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=1, **more,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(
        vocab_size=len(t5_tokenizer()), d_model=T5_WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu",
    ))


def vae(latents: int = 4, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=latents, block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=32, **more,
    )


def unet(width: int, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (16, 32), "layers_per_block": 1,
        "norm_num_groups": 4, "cross_attention_dim": width, "attention_head_dim": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return UNet2DConditionModel(**{**settings, **more})


def sd15() -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(), tokenizer=clip_tokenizer(), unet=unet(CLIP_WIDTH), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )


def sd21() -> Any:
    """Stable Diffusion 2.1: the velocity is predicted."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        set_alpha_to_one=False, steps_offset=1, clip_sample=False,
    )
    return StableDiffusionPipeline(
        vae=vae(), text_encoder=clip(hidden_act="gelu"), tokenizer=clip_tokenizer(),
        unet=unet(CLIP_WIDTH, use_linear_projection=True, attention_head_dim=(2, 4)), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )


def sdxl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    denoiser = unet(
        CLIP_WIDTH + CLIP_2_WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + CLIP_2_WIDTH, transformer_layers_per_block=(1, 2),
        use_linear_projection=True, attention_head_dim=(2, 4),
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1,
    )
    return StableDiffusionXLPipeline(
        vae=vae(scaling_factor=0.13025), text_encoder=clip(), text_encoder_2=clip(CLIP_2_WIDTH, CLIP_2_WIDTH),
        tokenizer=clip_tokenizer(), tokenizer_2=clip_tokenizer(), unet=denoiser, scheduler=scheduler,
    )


def sd3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=8, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=CLIP_WIDTH + CLIP_2_WIDTH,
        out_channels=8, pos_embed_max_size=16,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(8, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(CLIP_WIDTH, CLIP_WIDTH), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(CLIP_2_WIDTH, CLIP_2_WIDTH), tokenizer_2=clip_tokenizer(),
        text_encoder_3=None, tokenizer_3=None,
    )


def sd3_with_t5() -> Any:
    from diffusers import SD3Transformer2DModel

    pipeline = sd3()
    config = {**pipeline.transformer.config, "joint_attention_dim": T5_WIDTH}
    pipeline.register_modules(
        text_encoder=clip(16, 16), text_encoder_2=clip(16, 16), text_encoder_3=t5(), tokenizer_3=t5_tokenizer(),
        transformer=SD3Transformer2DModel(**{
            **{name: value for name, value in config.items() if not name.startswith("_")},
            "pooled_projection_dim": 32,
        }),
    )
    return pipeline


def flux(guided: bool = True, dynamic: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH, guidance_embeds=guided,
        axes_dims_rope=(4, 6, 6),
    )
    shifts = {"use_dynamic_shifting": True, "shift": 3.0} if dynamic else {"shift": 1.0}
    return FluxPipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(**shifts),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
    )


def pixart() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, cross_attention_dim=32, caption_channels=T5_WIDTH, norm_num_groups=4,
    )
    return PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(), text_encoder=t5(), vae=vae(), transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear"),
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "sd15": sd15, "sd21": sd21, "sdxl": sdxl, "sd3": sd3, "sd3_with_t5": sd3_with_t5, "flux": flux,
    "flux_schnell": lambda: flux(guided=False, dynamic=False), "pixart": pixart,
}


def saved(kind: str, folder: Path) -> Path:
    """The pipeline as a folder; random weights whose outputs depend on the inputs (many begin as zero)."""
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = MAKERS[kind]()
    denoiser = getattr(pipeline, "unet", None) or pipeline.transformer
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3 / max(parameter.shape[-1], 1) ** 0.5)
    pipeline.save_pretrained(str(folder))
    return folder


def opened(folder: Path) -> Any:
    """By plain diffusers, without its progress bars."""
    from diffusers import DiffusionPipeline
    from diffusers.utils import logging as library

    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    index = json.loads((folder / "model_index.json").read_text())
    # a part that is left out must be stored as None in every saved folder
    none = {name: None for name in ("text_encoder_3", "tokenizer_3") if index.get(name) == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(str(folder), **none)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def same_noise(kind: str, folder: Path, texts: list[str], latents: Any, steps: int, guidance: float = 1.0,
               negative: str = "", size: tuple[int, int] = (16, 16)) -> Any:
    """Latents that plain diffusers makes of this noise, by Euler's steps at the noise levels of the folder's own.

    ``size`` is the images' height and width.
    """
    pipeline = opened(folder)
    asked: dict[str, Any] = {"num_inference_steps": steps, "output_type": "latent", "height": size[0], "width": size[1]}
    if kind.startswith("flux"):
        packed = pipeline._pack_latents(latents, *latents.shape)
        if guidance != 1:
            asked |= {"true_cfg_scale": guidance, "negative_prompt": [negative] * len(latents)}
        made = pipeline(texts, latents=packed, **asked).images
        return pipeline._unpack_latents(made, *size, pipeline.vae_scale_factor)
    if not kind.startswith("sd3"):
        from diffusers import EulerDiscreteScheduler

        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        pipeline.scheduler.set_timesteps(steps)
        latents = latents * pipeline.scheduler.sigmas[0] / pipeline.scheduler.init_noise_sigma
    if kind == "pixart":
        asked["use_resolution_binning"] = False
    if negative:
        asked["negative_prompt"] = [negative] * len(latents)
    return pipeline(texts, latents=latents, guidance_scale=guidance, **asked).images

"""Small models with new tokens, and the images that diffusers draws with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from upturn import seeds
from upturn.config import components
from upturn.config.schema import Training
from upturn.models.text_to_image import TextToImage
from upturn.training import trainer
from upturn.training.feeds import FixedFeed
from upturn.training.setup import TrainingSetup
from upturn.types import Prompt, Samples, real_samples

SIZE = 16


TEXTS = ["a <cat>", "red <cat> hat", "a dog"]


SMALL = {"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1}


def pictures(n: int = 6) -> Samples:
    raw = seeds.table_uniform(2, 0, n, (SIZE, SIZE, 3)).numpy()
    return real_samples("image", (raw * 255).astype(np.uint8), [Prompt(TEXTS[i % 3]) for i in range(n)], "toy")


def fresh(folder: Path | None) -> TextToImage:
    return TextToImage(config=SMALL) if folder is None else TextToImage(folder=str(folder), size=SIZE)


def built(folder: Path | None) -> TextToImage:
    model = fresh(folder)
    model.build(pictures(), key=1)
    return model


class Stop(Exception):
    pass


def trained(model: TextToImage, adapter: Any, steps: int = 2, progress: Path | None = None, stop: int = 0,
            **fields: Any) -> TextToImage:
    feed = FixedFeed(model.encode(pictures()).with_given(weights=torch.ones(6)), 3, 3)

    def on_step(step: int, total: int, loss: float) -> None:
        if step == stop:
            raise Stop

    trainer.train(model, TrainingSetup(
        spec=Training(steps=steps, batch_size=3, learning_rate=1e-2, **fields), adapter=adapter, feed=feed, key=5,
        objective=components.make("objective", "likelihood"), where="test", progress=progress, on_step=on_step,
    ))
    return model


def drawn(model: TextToImage, texts: list[str]) -> torch.Tensor:
    settings = model.Sampling(steps=3, sampler="euler", guidance=2.0)
    return model.generate([Prompt(text) for text in texts], np.arange(len(texts)), settings)


def theirs(kind: str, pipeline: Any, texts: list[str], shape: tuple[int, ...]) -> torch.Tensor:
    """Latents of plain diffusers for the noise of ``drawn``."""
    latents = seeds.normal(np.arange(len(texts)), shape)
    asked = {"num_inference_steps": 3, "output_type": "latent", "height": SIZE, "width": SIZE}
    if kind == "flux":
        packed = pipeline._pack_latents(latents, *latents.shape)
        asked |= {"true_cfg_scale": 2.0, "negative_prompt": [""] * len(texts)}
        return pipeline._unpack_latents(pipeline(texts, latents=packed, **asked).images, SIZE, SIZE, 2)
    if kind != "sd3":
        from diffusers import EulerDiscreteScheduler

        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        pipeline.scheduler.set_timesteps(3)
        latents = latents * pipeline.scheduler.sigmas[0] / pipeline.scheduler.init_noise_sigma
    found: torch.Tensor = pipeline(texts, latents=latents, guidance_scale=2.0, **asked).images
    return found


def assert_same(ours: torch.Tensor, others: torch.Tensor) -> None:
    torch.testing.assert_close(ours, others, rtol=0, atol=2e-5 * max(float(ours.abs().max()), 1.0))

"""One training, this package's or that of diffusers' text-to-image example, on the same pipeline, images and batch.

python diffusion_step.py cached|uncached|theirs

The example (examples/text_to_image/train_text_to_image.py) is not in diffusers' wheel. Its step is built here from
parts that diffusers documents: the autoencoder's posterior is sampled and scaled, the text encoder reads captions,
``DDPMScheduler.add_noise`` at times drawn evenly, mean squared error of the U-Net's noise or velocity, its
gradient clipped to norm 1, AdamW with the example's settings. What the example does beside it and pays for (resizing
and flipping each image in each epoch, accelerate's wrappers, its progress bar) is left out, in its favour.

The pipeline is shaped as Stable Diffusion 1.5: autoencoder with factor 8, CLIP, four levels; and small. What does not
train costs about what it costs there at 512 x 512: the autoencoder 1.6 times a forward pass of the U-Net.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import Memory, clock, tell, threads, timed

BATCH, STEPS, SIZE, PICTURES = 8, 5, 64, 32
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-4, 1e-2, 1.0  # the example's
WORDS = ["a", "photo", "of", "the", "red", "blue", "small", "old", "cat", "dog", "house", "tree", "in", "rain"]
Given = Callable[[int], dict[str, Any]]  # of a step: rows, posterior noise, noise and times


def data() -> tuple[np.ndarray[Any, Any], list[str]]:
    """(N, 64, 64, 3) uint8 and N captions of four to twelve words."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(4, 13))) for _ in range(PICTURES)]
    return rng.integers(0, 256, (PICTURES, SIZE, SIZE, 3), dtype=np.uint8), texts


def checkpoint(folder: Path) -> None:
    """A pipeline with random weights, as both sides read it."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=64, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1, pad_token_id=1)
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8, block_out_channels=(32, 64, 64, 64), layers_per_block=2, norm_num_groups=16,
        cross_attention_dim=16, attention_head_dim=4)  # diffusers' name for how many heads there are
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 16, 32, 32), norm_num_groups=8,
        layers_per_block=2, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=SIZE)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(str(folder))


class Trained:
    """What a side leaves: a mark at the beginning and after every step, the losses, memory, seconds of preparation."""

    def __init__(self) -> None:
        self.memory, self.marks, self.losses, self.before = Memory(), [], [], 0.0

    marks: list[float]
    losses: list[float]

    def step(self, loss: float) -> None:
        self.marks.append(clock())
        self.losses.append(loss)


def model_of(folder: Path, cache: bool) -> tuple[Any, Any]:
    from upturn.config import components
    from upturn.types import Prompt, real_samples

    pictures, texts = data()
    samples = real_samples("image", pictures, [Prompt(text) for text in texts], "bench")
    model = components.make("model", {
        "name": "text_to_image", "folder": str(folder), "size": SIZE, "caption_dropout": 0.0, "cache": cache}, "bench")
    model.build(samples, 0)
    return model, samples


def feed_of(model: Any, samples: Any) -> Any:
    from upturn.training.feeds import FixedFeed

    return FixedFeed(model.encode(samples), BATCH, 1)


def ours(folder: Path, cache: bool) -> Trained:
    from upturn.config import components
    from upturn.config.schema import Training
    from upturn.training import trainer
    from upturn.training.setup import TrainingSetup

    model, samples = model_of(folder, cache)
    found = Trained()
    began = clock()
    feed = feed_of(model, samples)
    found.before = clock() - began
    # our loss is half the squared error, so its gradient is clipped at half the norm
    spec = Training(steps=STEPS, batch_size=BATCH, learning_rate=LEARNING_RATE, schedule="constant", warmup=0.0,
                    weight_decay=WEIGHT_DECAY, clip=CLIP / 2, precision="fp32")
    found.marks.append(clock())
    trainer.train(model, TrainingSetup(
        spec=spec, objective=components.make("objective", "likelihood", "bench"),
        adapter=components.make("adapter", "full", "bench"), feed=feed, key=1, where="bench",
        on_step=lambda step, total, loss: found.step(2 * loss)))
    return found


def theirs(folder: Path, given: Given | None = None) -> Trained:
    """``given`` says what is to be drawn in each step; without it the example's own draws."""
    import torch
    import torch.nn.functional as F
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from diffusers.optimization import get_scheduler
    from transformers import CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    place = str(folder)
    scheduler = DDPMScheduler.from_pretrained(place, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(place, subfolder="text_encoder").requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(place, subfolder="vae").requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(place, subfolder="unet").train()
    pictures, texts = data()
    found = Trained()
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    ids = tokenizer(texts, max_length=tokenizer.model_max_length, padding="max_length", truncation=True,
                    return_tensors="pt").input_ids
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=1e-8)
    rate = get_scheduler("constant", optimizer)
    found.marks.append(clock())
    for step, rows in zip(range(STEPS), _shuffled(), strict=False):
        drawn = given(step) if given else {}
        rows = drawn.get("rows", rows)
        posterior = vae.encode(pixels[rows]).latent_dist
        codes = posterior.mean + posterior.std * drawn["latent"] if drawn else posterior.sample()
        latents = codes * vae.config.scaling_factor
        noise = drawn["noise"] if drawn else torch.randn_like(latents)
        times = drawn["times"] if drawn else torch.randint(0, scheduler.config.num_train_timesteps, (len(rows),))
        noisy = scheduler.add_noise(latents, noise, times)
        words = encoder(ids[rows], return_dict=False)[0]
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, times) if velocity else noise
        said = unet(noisy, times, words, return_dict=False)[0]
        loss = F.mse_loss(said.float(), target.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), CLIP)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        found.step(loss.item())
    return found


def _shuffled() -> Iterator[Any]:
    import torch

    while True:
        yield from torch.randperm(PICTURES).split(BATCH)


def our_draws(folder: Path) -> Given:
    """Rows, noise and times of our training's steps, for theirs."""
    import torch
    from diffusers import DDPMScheduler

    from upturn import seeds

    model, samples = model_of(folder, cache=True)
    feed = feed_of(model, samples)
    table = DDPMScheduler.from_config(model.pipeline.scheduler).alphas_cumprod.double()
    levels = ((1 - table) / table).sqrt()

    def given(step: int) -> dict[str, Any]:
        epoch, within = divmod(step, feed.steps_per_epoch)
        draw = model.draw(feed.batch(step), int(seeds.fold(1, step)[0]), 0)
        times = (levels[None] - draw.sigma.double()).abs().argmin(dim=1)
        return {"rows": feed._order(epoch)[within], "latent": draw.latent, "noise": draw.noise[:, 0], "times": times}

    assert torch.equal(feed.batch(0)["x"], feed.examples["x"][given(0)["rows"]])
    return given


def main() -> None:
    import torch

    torch.set_num_threads(threads())
    import diffusers  # noqa: F401 - both sides pay for imports before memory is read
    import transformers  # noqa: F401

    side = sys.argv[1]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        checkpoint(folder)
        if side == "given":
            found = theirs(folder, our_draws(folder))
        else:
            found = theirs(folder) if side == "theirs" else ours(folder, side == "cached")
        tell({"per_second": timed(found.marks[1:], BATCH), "megabytes": found.memory.above, "losses": found.losses,
              "before": found.before})


if __name__ == "__main__":
    main()

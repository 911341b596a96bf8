"""Tests of text_to_image against plain diffusers: equal images, equal training loss, contract and refusals."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch

from helpers import model_contract as contract
from helpers import tiny_pipelines as tiny
from upturn import seeds
from upturn.config import components
from upturn.errors import UserError
from upturn.models._diffusion.sampling import denoiser
from upturn.models.text_to_image import TextToImage
from upturn.types import Batch, Prompt, objects, real_samples

pytestmark = pytest.mark.slow

SIZE = 16
TEXTS = ["a red cat", "a blue dog", "the ugly house", ""]
PROMPTS = [Prompt(text) for text in TEXTS]
SMALL = {"channels": [16, 32], "head_dim": 8, "text_width": 16, "text_layers": 1}


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory):
    """Folders of tiny pipelines by name, each built once."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = tiny.saved(kind, tmp_path_factory.mktemp("pipelines") / kind)
        return made[kind]

    return folder


def pictures(n=6, size=SIZE, texts=TEXTS):
    raw = seeds.table_uniform(2, 0, n, (size, size, 3)).numpy()
    prompts = [Prompt(texts[i % len(texts)]) for i in range(n)]
    return real_samples("image", (raw * 255).astype(np.uint8), prompts, "toy")


def nudged(model, size=0.1):
    """Weights away from their start, where much of a network is zero."""
    with torch.no_grad():
        for i, parameter in enumerate(model.module.parameters()):
            noise = seeds.table_normal(50 + i, 0, 1, tuple(parameter.shape))[0]
            parameter.add_(size * noise / max(parameter.shape[-1], 1) ** 0.5)
    return model


def built(folder, **fields):
    model = TextToImage(folder=str(folder), size=SIZE, **fields)
    model.build(pictures(), key=1)
    return model


def small(**fields):
    model = TextToImage(config=SMALL, **fields)
    model.build(pictures(), key=1)
    return nudged(model)


# The same images in plain diffusers.


@pytest.mark.parametrize("kind", tiny.MAKERS)
def test_a_saved_model_draws_the_same_images_in_plain_diffusers(kind, pipelines, tmp_path):
    """Item 2: opened by DiffusionPipeline.from_pretrained, same noise, Euler steps and guidance: the same latents."""
    model = built(pipelines(kind))
    model.save(tmp_path)
    noise = seeds.normal(np.arange(2), model.frame.shape)
    for guidance, negative in ((1.0, ""), (2.5, ""), (2.5, "ugly")):
        settings = model.Sampling(steps=4, sampler="euler", guidance=guidance, negative=negative)
        ours = model.generate(PROMPTS[:2], np.arange(2), settings)
        theirs = tiny.same_noise(kind, tmp_path, TEXTS[:2], noise, 4, guidance, negative)
        scale = float(ours.abs().max())  # random weights: some of these latents are in the hundreds
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * max(scale, 1.0))
    assert not torch.allclose(ours[0], ours[1], atol=1e-3)
    loaded = TextToImage(folder=str(pipelines(kind)), size=SIZE)
    loaded.load(tmp_path)
    torch.testing.assert_close(ours, loaded.generate(PROMPTS[:2], np.arange(2), settings), rtol=0, atol=1e-4)


def test_the_small_model_is_a_stable_diffusion_that_diffusers_samples_with_its_own_scheduler(tmp_path):
    model = small()
    model.save(tmp_path)
    pipeline = tiny.opened(tmp_path)
    settings = model.Sampling(steps=5, sampler="euler", guidance=3.0)
    keys = np.arange(3)
    ours = model.generate(PROMPTS[:3], keys, settings)
    first = model.form.sigmas(5)[0]
    start = seeds.normal(keys, model.frame.shape) * first / (1 + first**2).sqrt()
    asked = {"num_inference_steps": 5, "guidance_scale": 3.0, "height": SIZE, "width": SIZE}
    theirs = pipeline(TEXTS[:3], latents=start, output_type="latent", **asked).images  # DDIM, as saved
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    shown = pipeline(TEXTS[:3], latents=start, output_type="np", **asked).images
    assert np.abs((shown * 255).round().astype(int) - model.content(ours).astype(int)).max() <= 1


def test_the_small_models_autoencoder_changes_nothing():
    model, examples = small(), pictures()
    x = torch.from_numpy(examples.content.transpose(0, 3, 1, 2)).float() / 127.5 - 1
    latents = model.encode(examples)["x"]
    torch.testing.assert_close(latents, x, rtol=0, atol=1e-6)
    torch.testing.assert_close(model.latents.images(latents), x, rtol=0, atol=1e-5)
    assert (model.content(latents) == examples.content).all()
    far = torch.full((1, 3, SIZE, SIZE), -4.0)
    torch.testing.assert_close(model.latents.images(far), far, rtol=1e-4, atol=0)


# The same training loss.


def _embedded(pipeline, kind, texts):
    """The diffusers pipeline's own reading of captions, as its training examples use it."""
    if kind in {"sd15", "sd21"}:
        return {"encoder_hidden_states": pipeline.encode_prompt(texts, "cpu", 1, False)[0]}
    if kind == "sdxl":
        words, _, pooled, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False)
        sizes = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]]).repeat(len(texts), 1)
        return {"encoder_hidden_states": words, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    words, _, pooled, _ = pipeline.encode_prompt(texts, None, None, do_classifier_free_guidance=False)
    return {"encoder_hidden_states": words, "pooled_projections": pooled}


def _textbook(pipeline, kind, latents, noise, draw, texts):
    """MSE of the prediction's target, a row each, after the scheduler's own add_noise or scale_noise."""
    from diffusers import DDPMScheduler

    text = _embedded(pipeline, kind, texts)
    sigma = draw.sigma[:, 0].double()
    if kind == "sd3":
        t = sigma / (1 + sigma)
        scheduler = pipeline.scheduler
        at = (scheduler.sigmas[None].double() - t[:, None]).abs().argmin(dim=1)
        t = scheduler.sigmas[at][:, None, None, None]
        said = pipeline.transformer((1 - t) * latents + t * noise, timestep=scheduler.timesteps[at], **text).sample
        return (said - (noise - latents)).square().flatten(1).mean(1), at
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().double()
    at = (table[None] - sigma[:, None]).abs().argmin(dim=1)
    said = pipeline.unet(scheduler.add_noise(latents, noise, at), at, **text).sample
    velocity = kind == "sd21"
    target = scheduler.get_velocity(latents, noise, at) if velocity else noise
    return (said - target).square().flatten(1).mean(1), at


@pytest.mark.parametrize("kind", ["sd15", "sd21", "sdxl", "sd3"])
@pytest.mark.parametrize("cache", [False, True])
def test_the_loss_is_that_of_the_training_step_of_diffusers(kind, cache, pipelines):
    """Item 4: the same model, images, captions, noise and times, to 1e-4 (of a loss of about 2)."""
    model, examples = built(pipelines(kind), caption_dropout=0.0, cache=cache), pictures()
    batch = model.encode(examples)
    draw = model.draw(batch, 4, 0)
    out = model.forward(batch, draw)
    ours = (-2 * out.log_probs[:, 0] / out.dims).detach()
    pipeline = tiny.opened(pipelines(kind))
    with torch.no_grad():
        pixels = pipeline.image_processor.preprocess(examples.content.astype(np.float32) / 255)
        spread = pipeline.vae.encode(pixels).latent_dist
        codes = spread.mean + spread.std * draw.latent
        shift = pipeline.vae.config.shift_factor or 0.0
        latents = (codes - shift) * pipeline.vae.config.scaling_factor
        texts = [prompt.text for prompt in examples.prompts]
        theirs, _ = _textbook(pipeline, kind, latents, draw.noise[:, 0], draw, texts)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len({round(float(s), 6) for s in draw.sigma[:, 0]}) == len(examples)


@pytest.mark.parametrize("kind", ["sd15", "sd21"])
def test_min_snr_is_the_papers_weight_of_each_prediction(kind, pipelines):
    """Hang et al. 2023: min(SNR, 5) / SNR of the noise's error, min(SNR, 5) / (SNR + 1) of the velocity's."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    plain, weighted = (built(pipelines(kind), min_snr=gamma) for gamma in (None, 5.0))
    batch = plain.encode(pictures())
    draw = plain.draw(batch, 4, 0)
    scheduler = DDPMScheduler.from_config(plain.pipeline.scheduler)
    table = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt()
    snr = compute_snr(scheduler, (table[None] - draw.sigma).abs().argmin(dim=1))
    wanted = snr.clamp(max=5.0) / (snr if kind == "sd15" else snr + 1)
    with pytest.raises(KeyError, match="never read"):
        weighted.forward(batch, draw)
    weighted.encode(pictures())
    ratio = weighted.forward(batch, draw).log_probs[:, 0] / plain.forward(batch, draw).log_probs[:, 0]
    torch.testing.assert_close(ratio.detach(), wanted, rtol=1e-3, atol=1e-5)
    assert wanted.min() < 0.9


def test_offset_noise_moves_whole_channels():
    model = small(noise_offset=0.5, draws=2)
    batch = Batch({"x": torch.zeros(400, 3, SIZE, SIZE), "captions": torch.zeros(400, 1, dtype=torch.int64)})
    plain = small(draws=2).draw(batch, 3, 0).noise
    moved = model.draw(batch, 3, 0).noise - plain
    assert float(moved.std(dim=(-1, -2)).max()) < 1e-6
    means = moved.mean(dim=(-1, -2))
    assert abs(float(means.std()) - 0.5) < 5 * 0.5 / math.sqrt(2 * means.numel())
    assert abs(float(means.mean())) < 5 * 0.5 / math.sqrt(means.numel())


# The contract.


CASES = {
    "small": lambda _: (lambda: TextToImage(config=SMALL)),
    "sd15": lambda folder: (lambda: TextToImage(folder=str(folder("sd15")), size=SIZE, draws=2)),
    "sd3": lambda folder: (lambda: TextToImage(folder=str(folder("sd3")), size=SIZE)),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_contract(case, pipelines, tmp_path):
    make = CASES[case](pipelines)

    class Nudged:
        def __new__(cls):
            model = make()
            plain = model.build

            def build(samples, key):
                plain(samples, key)
                if case == "small":
                    nudged(model)

            model.build = build
            return model

    settings = make().Sampling(steps=2, sampler="euler", batch=5, guidance=2.0)
    examples = pictures(4)
    contract.assert_policy_contract(Nudged, examples, PROMPTS[:3], tmp_path, settings=settings)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3", "flux"])
def test_a_image_is_the_same_alone_in_a_batch_in_a_grid_and_after_reload(kind, pipelines, tmp_path):
    """Item 3, with captions met in another order, and next to others of any length."""
    model = built(pipelines(kind))
    settings = model.Sampling(steps=3, sampler="dpmpp_2m", guidance=2.0)
    keys = np.arange(12)
    every = [PROMPTS[i % 4] for i in range(12)]
    grid = model.generate(every, keys, settings)
    model.save(tmp_path)
    again = TextToImage(folder=str(pipelines(kind)), size=SIZE)
    again.load(tmp_path)
    alone = torch.cat([again.generate([every[i]], keys[i : i + 1], settings) for i in reversed(range(12))]).flip(0)
    scale = max(1.0, float(grid.abs().max()))
    torch.testing.assert_close(alone, grid, rtol=0, atol=1e-4 * min(scale, 1.0) if scale < 10 else 1e-5 * scale)


# Captions.


def test_one_of_several_captions_is_read_each_with_the_same_chance():
    model = small()
    several = objects([("a cat", "a dog", "a house"), ("red",)] * 3)
    examples = pictures().with_fields(captions=several)
    batch = model.encode(examples)
    assert batch["captions"].shape == (6, 3) and (batch["captions"][1] >= 0).tolist() == [True, False, False]
    many = Batch({name: column[:2].repeat(3000, *[1] * (column.ndim - 1)) for name, column in batch.columns.items()})
    draw = model.draw(many, 9, 0)
    drawn = model.training_condition(many, draw)["caption"].reshape(3000, 2)
    kept = ~draw.drop.reshape(3000, 2)
    numbers = model.captions.keys(["a cat", "a dog", "a house", "red"])
    shares = torch.stack([(drawn[:, 0][kept[:, 0]] == n).float().mean() for n in numbers[:3]])
    assert (shares - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / 2600)
    assert (drawn[:, 1][kept[:, 1]] == numbers[3]).all()
    assert (drawn[~kept] == 0).all() and abs(float(draw.drop.float().mean()) - 0.1) < 4 * math.sqrt(0.09 / 6000)
    assert small().draw(small().encode(pictures()), 9, 0).variant is None


def test_captions_that_are_too_long_are_counted():
    model = small()
    long = "house " * 40
    model.encode(pictures(texts=["a cat", long]))
    assert model.notes == ("3 of 6 captions are longer than the text encoder reads, and are cut",)
    model.encode(pictures())
    assert model.notes == ()


def test_a_stale_cache_of_captions_is_noted(pipelines):
    model, fresh = built(pipelines("sd15")), built(pipelines("sd15"), cache=False)
    settings = model.Sampling(steps=2)
    before = model.generate(PROMPTS[:1], np.arange(1), settings)
    model.encode(pictures())
    for each in (model, fresh):
        encoder = each.captions.frozen["text_encoder"]
        with torch.no_grad():
            encoder.text_model.final_layer_norm.weight.mul_(1.5) if hasattr(encoder, "text_model") else (
                encoder.final_layer_norm.weight.mul_(1.5)
            )
    after = model.generate(PROMPTS[:1], np.arange(1), settings)
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, fresh.generate(PROMPTS[:1], np.arange(1), settings), rtol=1e-5, atol=1e-5)
    model.encode(pictures())
    assert "were encoded again" in model.notes[0]


def test_an_absent_caption_is_zeros_in_a_pipeline_configured_so(pipelines):
    model = built(pipelines("sdxl"))
    text, _ = model.captions.rows(model.captions.keys([None, "", "a cat"]))
    assert all(float(value[0].abs().max()) == 0 for value in text.values())
    assert all(float(value[1].abs().max()) > 0 for value in text.values())
    plain, _ = built(pipelines("sd15")).captions.rows(torch.tensor([0]))
    assert float(plain["hidden"].abs().max()) > 0


def test_a_text_encoder_that_trains_learns_from_the_loss(pipelines):
    for model in (small(), built(pipelines("sdxl"), train_text=True)):
        batch = model.encode(pictures())
        model.forward(batch, model.draw(batch, 3, 0)).log_probs.sum().backward()
        moved = [name for name, p in model.module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
        assert any(name.startswith("text_encoder") for name in moved) and any("down_blocks" in name for name in moved)
    frozen = built(pipelines("sd15"))
    assert not any("text" in name for name, _ in frozen.module.named_parameters())


# Policy gradients.


@pytest.mark.parametrize("kind", ["small", "sd15", "sd3"])
def test_replay_gives_the_log_probs_of_the_rollout(kind, pipelines):
    model = small() if kind == "small" else built(pipelines(kind))
    keys = contract.sampling_keys(PROMPTS, 2)
    settings = model.Sampling(steps=4, sampler="ancestral", guidance=1.7, batch=3)
    rollout = model.rollout(PROMPTS, keys, settings)
    batch = model.replay(rollout)
    out = model.act(batch)
    size = float(rollout.log_probs.abs().max())
    torch.testing.assert_close(out.log_probs.detach(), rollout.log_probs, rtol=1e-4, atol=1e-4 * size)
    out.log_probs.sum().backward()
    gradients = [p.grad for p in model.module.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)
    with torch.no_grad():  # as the trainer asks before a step
        torch.testing.assert_close(model.act(batch).log_probs, out.log_probs.detach(), rtol=1e-4, atol=1e-4 * size)
    with pytest.raises(UserError, match="takes no 'negative'"):
        model.rollout(PROMPTS, keys, model.Sampling(steps=4, sampler="ancestral", guidance=2.0, negative="ugly"))


def test_a_model_is_guided_by_another_of_its_own_captions(pipelines):
    """Autoguidance: each model reads captions with its own numbers; a copy of itself as the guide changes nothing."""
    model, guide = built(pipelines("sd15")), built(pipelines("sd15"))
    guide.captions.keys(["other", "captions", "first"])
    settings = model.Sampling(steps=3, guidance=3.0, guide="bad")
    plain = model.generate(PROMPTS, np.arange(4), model.Sampling(steps=3))
    guided = model.generate(PROMPTS, np.arange(4), settings, {"bad": guide})
    torch.testing.assert_close(plain, guided, rtol=1e-4, atol=1e-4)
    nudged(guide)
    assert not torch.allclose(plain, model.generate(PROMPTS, np.arange(4), settings, {"bad": guide}), atol=1e-2)


# Files.


def test_parts_that_did_not_change_are_linked(pipelines, tmp_path):
    model = built(pipelines("sd15"))
    model.save(tmp_path / "one")
    loaded = TextToImage(folder=str(pipelines("sd15")), size=SIZE)
    loaded.load(tmp_path / "one")
    nudged(loaded).save(tmp_path / "two")
    same = {
        path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two").rglob("*")
        if path.is_file() and path.samefile(tmp_path / "one" / path.relative_to(tmp_path / "two"))
    }
    assert "vae/diffusion_pytorch_model.safetensors" in same and "text_encoder/model.safetensors" in same
    assert "tokenizer/tokenizer.json" in same and "unet/diffusion_pytorch_model.safetensors" not in same
    source = pipelines("sd15") / "vae" / "diffusion_pytorch_model.safetensors"
    assert source.stat().st_nlink == 1  # a person's own file is copied: it may be edited where it is


@pytest.mark.parametrize("adapter", ["lora", "dora", "adalora"])
@pytest.mark.parametrize("text", [False, True])
def test_adapters_on_the_denoiser_and_on_the_text_encoder(adapter, text, pipelines, tmp_path):
    fields = {"train_text": True} if text else {}
    model = built(pipelines("sd15"), **fields)
    layers = ["to_q", "to_v", *(["q_proj"] if text else [])]
    spec = {"name": adapter, "rank": 2, "modules": layers}
    if adapter == "adalora":
        del spec["rank"]
    made = components.make("adapter", spec)
    plain = model.generate(PROMPTS[:2], np.arange(2), model.Sampling(steps=2))
    made.attach(model, 10, 3)
    with torch.no_grad():
        for i, parameter in enumerate(made.parameters(model)):
            parameter.add_(0.1 * seeds.table_normal(i, 0, 1, tuple(parameter.shape))[0])
    adapted = model.generate(PROMPTS[:2], np.arange(2), model.Sampling(steps=2))
    assert not torch.allclose(plain, adapted, atol=1e-3)
    reference = made.reference(model).generate(PROMPTS[:2], np.arange(2), model.Sampling(steps=2))
    torch.testing.assert_close(reference, plain, rtol=0, atol=1e-4)
    model.save(tmp_path)
    assert (tmp_path / "adapters" / adapter / "adapter_model.safetensors").is_file()
    loaded = TextToImage(folder=str(pipelines("sd15")), size=SIZE, **fields)
    loaded.load(tmp_path)
    again = loaded.generate(PROMPTS[:2], np.arange(2), model.Sampling(steps=2))
    torch.testing.assert_close(again, adapted, rtol=0, atol=1e-4)
    if not text and adapter == "lora":  # plain peft puts them on plain diffusers' U-Net
        from peft import PeftModel

        pipeline = tiny.opened(tmp_path)
        at = tmp_path / "adapters" / adapter
        pipeline.unet = PeftModel.from_pretrained(pipeline.unet, str(at)).merge_and_unload()
        x, words = torch.randn(2, 4, 8, 8), torch.randn(2, tiny.LENGTH, tiny.CLIP_WIDTH)
        with torch.no_grad():
            theirs = pipeline.unet(x, 30, encoder_hidden_states=words).sample
            ours = loaded.module(x, 30, encoder_hidden_states=words).sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# Refusals.


def _changed(folder, target, path, **values):
    shutil.copytree(folder, target)
    file = target / path
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return target


SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"


@pytest.mark.parametrize(
    ("path", "values", "says"),
    [
        (INDEX, {"_class_name": "StableDiffusionInpaintPipeline"}, "InpaintPipeline is not supported.*FluxPipeline"),
        (INDEX, {"unet": ["my_unet", "Unet"]}, "unet of this .* is my_unet.Unet.*never run"),
        (INDEX, {"vae": ["diffusers", "AutoencoderDC"]}, "vae .* is diffusers.AutoencoderDC.*AutoencoderKL"),
        ("unet/config.json", {"in_channels": 9}, "9 channels in and 4 out: one for inpainting"),
        ("unet/config.json", {"out_channels": 8}, "4 channels in and 8 out: one that learns its variance"),
        ("unet/config.json", {"time_cond_proj_dim": 256}, "time_cond_proj_dim: 256"),
        ("vae/config.json", {"latents_mean": [0.0]}, "autoencoder with latents_mean"),
        (SCHEDULER, {"rescale_betas_zero_snr": True}, "zero terminal SNR"),
        (SCHEDULER, {"variance_type": "learned_range"}, "variance_type 'learned_range'"),
        (SCHEDULER, {"prediction_type": "sample"}, "prediction_type 'sample'.*epsilon"),
        (SCHEDULER, {"trained_betas": [0.1, 0.2]}, "trained_betas"),
        (SCHEDULER, {"_class_name": "CMStochasticIterativeScheduler"}, "scheduler CMStochastic"),
    ],
)
def test_unavailable_models_are_refused_when_the_recipe_is_read(path, values, says, pipelines, tmp_path):
    folder = _changed(pipelines("sd15"), tmp_path / "odd", path, **values)
    with pytest.raises(UserError, match=says):
        components.make("model", {"name": "text_to_image", "folder": str(folder)})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "exactly one of config, folder and hub"),
        ({"config": {}, "folder": "x"}, "exactly one of config, folder and hub"),
        ({"config": {"chanels": [8]}}, "Did you mean 'channels'"),
        ({"config": {"channels": [12]}}, "multiple of 8"),
        ({"config": {"vocabulary": 100}}, "at least 514"),
        ({"config": {}, "caption_dropout": 1.0}, "caption_dropout"),
        ({"config": {}, "min_snr": 0.0}, "min_snr"),
        ({"folder": "nowhere"}, "has no model_index.json"),
    ],
)
def test_bad_fields_are_named(fields, says):
    with pytest.raises(UserError, match=says):
        components.make("model", {"name": "text_to_image", **fields})


def test_settings_that_do_not_fit_are_named(pipelines, tmp_path):
    with pytest.raises(UserError, match="cannot be trained"):
        TextToImage(folder=str(pipelines("pixart")), train_text=True)
    with pytest.raises(UserError, match="takes uint8 images of 16x16x3"):
        TextToImage(folder=str(pipelines("sd15")), size=SIZE).build(pictures(size=8), 1)
    with pytest.raises(UserError, match="multiple of 2"):
        TextToImage(folder=str(pipelines("sd15")), size=15).build(pictures(), 1)
    with pytest.raises(UserError, match="multiple of 4"):
        TextToImage(folder=str(pipelines("flux")), size=18).build(pictures(), 1)
    with pytest.raises(UserError, match="multiple of 8"):
        TextToImage(config=SMALL, size=20).build(pictures(), 1)
    with pytest.raises(UserError, match="negative does nothing"):
        components.checked(TextToImage.Sampling, {"negative": "ugly"}, "s", "sampling")
    with pytest.raises(UserError, match="starts at pure noise"):
        model = built(pipelines("sd3"))
        model.generate(PROMPTS, np.arange(4), model.Sampling(sampler="heun"))
    with pytest.raises(UserError, match="caption_dropout 0"):
        model = small(caption_dropout=0.0)
        model.generate(PROMPTS, np.arange(4), model.Sampling(guidance=2.0))
    broken = shutil.copytree(pipelines("sd15"), tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").rename(broken / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=r"unet cannot be read.*safetensors"):
        TextToImage(folder=str(broken), size=SIZE).build(pictures(), 1)


def test_a_saved_folder_that_contradicts_is_named(tmp_path):
    small().save(tmp_path)
    for other, says in (
        (TextToImage(config={**SMALL, "channels": [8, 16]}), "config.channels is"),
        (TextToImage(config=SMALL, size=32), "size is 16"),
    ):
        with pytest.raises(UserError, match=says):
            other.load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        TextToImage(config=SMALL).load(tmp_path)


def test_a_denoiser_of_rows_is_the_denoiser_of_each_row():
    """One noise level for all, as in sampling, and one a row, as in training, are the same function."""
    model = small()
    x = seeds.table_normal(4, 0, 3, model.frame.shape)
    condition = model.condition(PROMPTS[:3])
    with torch.no_grad():
        d = denoiser(model, condition, model.Sampling(), {})
        torch.testing.assert_close(d(x, torch.tensor(2.0)), d(x, torch.full((3,), 2.0)), rtol=1e-4, atol=1e-5)

"""Tests of the diffusion models of points and pixels: contract, diffusers export, rollouts, guidance, bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from helpers import model_contract as contract
from upturn import seeds
from upturn.config import components
from upturn.errors import UserError
from upturn.models.pixels import Pixels
from upturn.models.points import Points
from upturn.types import Batch, Prompt, real_samples

SMALL = {"name": "mlp", "width": 16, "depth": 2, "embedding": 8}
UNET = {"name": "unet", "channels": [8, 16], "groups": 4, "head_dim": 4}
DISTANT = np.array([[3.0, -1.0], [5.0, 4.0], [9.0, 0.0]])


def points(n=40, classes=3):
    label = np.arange(n) % classes
    content = DISTANT[label] + 0.3 * seeds.table_normal(1, 0, n, (2,)).numpy()
    return real_samples("points", content.astype(np.float32), [Prompt(label=int(i)) for i in label], "toy")


def pictures(n=24, size=8, channels=1, classes=3):
    raw = seeds.table_uniform(2, 0, n, (size, size, channels)).numpy()
    label = np.arange(n) % classes
    return real_samples("image", (raw * 255).astype(np.uint8), [Prompt(label=int(i)) for i in label], "toy")


def nudged(model, size=0.2):
    """Weights away from their start, where the network is exactly zero."""
    with torch.no_grad():
        for i, parameter in enumerate(model.module.parameters()):
            noise = seeds.table_normal(50 + i, 0, 1, tuple(parameter.shape))[0]
            parameter.add_(size * noise / parameter.shape[-1] ** 0.5)
    return model


def built(model, examples):
    model.build(examples, key=1)
    return nudged(model)


PROMPTS = [Prompt(label=0), Prompt(label=2), Prompt(), Prompt(label=1)]
CASES = {
    "points": (lambda: Points(network=SMALL), points),
    "points-classes": (lambda: Points(classes=3, network=SMALL, formulation="epsilon", draws=2), points),
    "pixels-mlp": (lambda: Pixels(classes=3, network=SMALL, formulation="edm"), pictures),
    "pixels-unet": (lambda: Pixels(classes=3, network=UNET), lambda: pictures(n=8, size=16, channels=3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_contract(case, tmp_path):
    make, examples = CASES[case]

    class Nudged:
        """Built with weights that answer to their input; otherwise the model itself."""

        def __new__(cls):
            model = make()
            plain = model.build

            def build(samples, key):
                plain(samples, key)
                nudged(model)

            model.build = build
            return model

    settings = make().Sampling(steps=4, sampler="ancestral" if case == "points" else "euler", batch=5)
    contract.assert_policy_contract(Nudged, examples(), PROMPTS, tmp_path, settings=settings)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "ancestral", "churn"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_samples_do_not_depend_on_batch_or_order(sampler, guidance):
    model = built(Pixels(classes=3, network=SMALL), pictures())
    contract.assert_batch_size_invariance(model, PROMPTS, model.Sampling(steps=6, sampler=sampler, guidance=guidance))


def test_one_noise_level_for_all_rows_is_the_same_network():
    """Sampling computes the condition once a class; training once a row."""
    model = built(Pixels(classes=3, network=SMALL), pictures())
    x = seeds.table_normal(4, 0, 9, (1, 8, 8))
    label = torch.tensor([0, 1, 2, -1, -1, 2, 1, 0, 0])
    one = model.module(x, torch.tensor(300.0), label)
    torch.testing.assert_close(one, model.module(x, torch.full((9,), 300.0), label), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(one[0], model.module(x, torch.tensor(300.0), torch.full((9,), 2))[0])


@pytest.mark.parametrize("formulation", ["epsilon", "edm", "flow"])
def test_log_probs_are_the_weighted_squared_error(formulation):
    """From the class's docstring, row by row, candidates and draws included."""
    model = built(Points(classes=3, network=SMALL, formulation=formulation, draws=3), points(12))
    batch = contract.every(Batch(model.encode(points(12)).columns, candidates=2))
    drawn = model.draw(batch, 8, 5)
    assert drawn.sigma.shape == (12, 3) and drawn.noise.shape == (12, 3, 2)
    out = model.forward(batch, drawn)
    assert out.dims == 2 and (out.mask == 1).all()
    scale, mean = model.frame.scale, torch.tensor(model.frame.mean)
    settings = model.Sampling()
    from upturn.models._diffusion.sampling import denoiser

    for row, time in ((0, 0), (5, 2), (11, 1)):
        x0 = (torch.from_numpy(points(12).content[row]) - mean) / scale
        sigma = drawn.sigma[row, time]
        label = torch.tensor([-1 if drawn.drop[row] else points(12).labels[row]])
        with torch.no_grad():
            d = denoiser(model, {"label": label}, settings, {})((x0 + sigma * drawn.noise[row, time])[None], sigma)[0]
        expected = -0.5 * model.form.weight(sigma) * (d - x0).square().sum()
        torch.testing.assert_close(out.log_probs[row, time].detach(), expected, rtol=1e-4, atol=1e-4)


def test_labels_are_dropped_at_the_stated_rate():
    model = built(Points(classes=3, network=SMALL, label_dropout=0.3), points())
    batch = Batch({"x": torch.zeros(10_000, 2), "label": torch.zeros(10_000, dtype=torch.int64)})
    share = model.draw(batch, 1, 0).drop.float().mean()
    assert abs(float(share) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 10_000)
    assert built(Points(network=SMALL), points()).draw(batch, 1, 0).drop is None


def test_points_are_standardised_and_come_back_in_their_units():
    model = built(Points(network=SMALL), points())
    x = model.into(model.encode(points())["x"])
    assert abs(float(x.mean())) < 1e-6 and float(x.square().mean()) == pytest.approx(1.0, abs=1e-5)
    torch.testing.assert_close(model.frame.back(x), torch.from_numpy(points().content))


def test_pixels_are_minus_one_to_one_and_come_back_exactly():
    model = built(Pixels(network=SMALL), pictures(channels=3))
    batch = model.encode(pictures(channels=3))
    assert batch["x"].dtype == torch.uint8 and batch["x"].shape == (24, 3, 8, 8)
    assert (model.content(model.into(batch["x"])) == pictures(channels=3).content).all()
    assert model.content(torch.full((1, 3, 8, 8), 1.7)).max() == 255


# What diffusers opens.


def test_diffusers_opens_the_mlp(tmp_path):
    from upturn.diffusion.networks._diffusers import ResidualMlp

    model = built(Points(classes=3, network=SMALL), points())
    model.save(tmp_path)
    opened = ResidualMlp.from_pretrained(tmp_path / "mlp").eval()
    x, noise, label = torch.randn(5, 2), torch.rand(5) * 1000, torch.tensor([0, 1, 2, -1, 0])
    assert torch.equal(opened(x, noise, label), model.module(x, noise, label))
    opened.save_pretrained(tmp_path / "again")
    ours, theirs = (json.loads((tmp_path / f / "config.json").read_text()) for f in ("mlp", "again"))
    assert ours == {name: theirs[name] for name in ours}
    assert not any(path.suffix in {".bin", ".pt", ".pkl"} for path in tmp_path.rglob("*"))


def test_diffusers_opens_an_unconditional_unet_as_a_pipeline_and_makes_images(tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    model = built(Pixels(network=UNET, formulation="epsilon"), pictures(n=4, size=16, channels=3))
    model.save(tmp_path)
    pipeline = DDPMPipeline.from_pretrained(str(tmp_path))
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    assert made.shape == (2, 16, 16, 3) and np.isfinite(made).all()
    assert isinstance(pipeline.scheduler, DDPMScheduler) and pipeline.scheduler.config.beta_end == 0.02
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        theirs = pipeline.unet(x, 250).sample
        ours = model.net.call(model.module, x, torch.tensor(250.0), {"label": torch.full((2,), -1)})
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


def test_diffusers_opens_a_conditional_unet(tmp_path):
    from diffusers import UNet2DModel

    model = built(Pixels(classes=3, network=UNET), pictures(n=4, size=16))
    model.save(tmp_path)
    opened = UNet2DModel.from_pretrained(tmp_path, subfolder="unet")
    assert opened.config.num_class_embeds == 4 and not (tmp_path / "model_index.json").exists()
    x, label = torch.randn(3, 1, 16, 16), torch.tensor([0, 2, -1])
    with torch.no_grad():
        theirs = opened(x, 40.0, class_labels=torch.tensor([0, 2, 3])).sample
        ours = model.net.call(model.module, x, torch.tensor(40.0), {"label": label})
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.slow
def test_points_do_not_import_diffusers():
    """It costs seconds at every start."""
    code = (
        "import sys, numpy as np; from upturn.models.points import Points; from upturn.types import *;"
        "m = Points(); m.build(real_samples('points', np.eye(4, 2, dtype='f4'), [Prompt()] * 4, 's'), 1);"
        "m.sample([Prompt()], np.ones((1, 2), dtype=np.int64), m.Sampling());"
        "sys.exit('diffusers' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Rollouts.


@pytest.mark.parametrize("guidance", [1.0, 1.7])
def test_replay_gives_the_log_probs_of_the_rollout(guidance):
    model = built(Pixels(classes=3, network=SMALL), pictures())
    keys = contract.sampling_keys(PROMPTS, 2)
    settings = model.Sampling(steps=6, sampler="ancestral", guidance=guidance, guidance_low=0.1, batch=3)
    rollout = model.rollout(PROMPTS, keys, settings)
    assert rollout.actions.shape == (8, 6, 1, 8, 8) and rollout.log_probs.shape == (8, 5)
    assert rollout.state["sigmas"].shape == (8, 6)
    replayed = model.transition_log_probs(rollout.actions, rollout.state)
    # 64 dimensions, hundreds of nats: 1e-5 of their size, and 1e-5 a dimension
    torch.testing.assert_close(replayed.detach(), rollout.log_probs, rtol=1e-5, atol=64e-5)
    part = {"sigmas": rollout.state["sigmas"][2:5, 1:4], "label": rollout.state["label"][2:5],
            "guidance": rollout.state["guidance"][2:5]}
    some = model.transition_log_probs(rollout.actions[2:5, 1:4], part)
    torch.testing.assert_close(some.detach(), rollout.log_probs[2:5, 1:3], rtol=1e-5, atol=64e-5)
    some.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.module.parameters())


def test_rollout_is_ancestral_sampling():
    model = built(Points(classes=3, network=SMALL), points())
    keys, settings = contract.sampling_keys(PROMPTS, 2), model.Sampling(steps=5, sampler="ancestral")
    rollout, samples = model.rollout(PROMPTS, keys, settings), model.sample(PROMPTS, keys, settings)
    np.testing.assert_allclose(rollout.samples.content, samples.content, rtol=1e-5, atol=1e-5)
    assert list(rollout.samples.ids) == list(samples.ids)


def test_rollout_log_probs_are_those_of_torch_distributions():
    """With a network of zeros flow's D is x / (1 + sigma): every transition is a Gaussian written out here."""
    model = Points(network=SMALL, formulation="flow")
    model.build(points(), key=1)
    settings = model.Sampling(steps=4, sampler="ancestral")
    rollout = model.rollout([Prompt()], contract.sampling_keys([Prompt()], 6), settings)
    sigma = model.form.sigmas(4)
    for i in range(3):
        now, later, x = sigma[i], sigma[i + 1], rollout.actions[:, i]
        share = later**2 / now**2
        normal = torch.distributions.Normal((1 - share) * x / (1 + now) + share * x, later * (1 - share).sqrt())
        expected = normal.log_prob(rollout.actions[:, i + 1]).sum(1)
        torch.testing.assert_close(rollout.log_probs[:, i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fields", [{"sampler": "euler"}, {"steps": 1, "sampler": "ancestral"}])
def test_rollout_refuses_what_has_no_log_probs(fields):
    model = built(Points(network=SMALL), points())
    with pytest.raises(UserError, match=r"Gaussian transitions \(ancestral\)"):
        model.rollout([Prompt()], contract.sampling_keys([Prompt()], 1), model.Sampling(**fields))


# Guidance.


def test_autoguidance_by_a_model_of_another_scale():
    """A guide whose data were standardised differently: guided by its own copy under other units, nothing changes."""
    model = Points(network=SMALL, formulation={"name": "edm", "sigma_data": 1.0})
    model.build(points(), key=1)
    guide = Points(network=SMALL, formulation={"name": "edm", "sigma_data": 0.5})
    guide.build(points(), key=1)
    from upturn.models._diffusion.normalization import Frame

    # both networks are zero, so D(x) = c_skip x shrinks towards the mean: the same function if scale / sigma_data agree
    guide.frame = Frame((2,), model.frame.mean, model.frame.scale * 2, 0.5)
    keys = contract.sampling_keys(PROMPTS, 4).reshape(-1)
    flat = [p for p in PROMPTS for _ in range(4)]
    alone = model.generate(flat, keys, model.Sampling(steps=5))
    guided = model.generate(flat, keys, model.Sampling(steps=5, guidance=3.0, guide="bad"), {"bad": guide})
    torch.testing.assert_close(alone, guided, rtol=1e-4, atol=1e-4)
    other = built(Points(network=SMALL), points())
    moved = model.generate(flat, keys, model.Sampling(steps=5, guidance=3.0, guide="bad"), {"bad": other})
    assert not torch.allclose(alone, moved, atol=0.01)


def test_guidance_leaves_rows_without_a_class_alone():
    model = built(Pixels(classes=3, network=SMALL), pictures())
    keys = contract.sampling_keys(PROMPTS, 1).reshape(-1)
    plain, guided = (model.generate(PROMPTS, keys, model.Sampling(steps=5, guidance=g)) for g in (1.0, 3.0))
    changed = (plain - guided).abs().flatten(1).amax(1) > 1e-3
    assert changed.tolist() == [True, True, False, True]


# Bad input.


def _sampled(model, examples, label=None, **settings):
    prompts = [Prompt(label=label)]
    model.build(examples, key=1)
    return model.sample(prompts, contract.sampling_keys(prompts, 1), model.Sampling(**settings))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: Points(network=SMALL).build(pictures(), 1), "takes points, got image"),
        (lambda: Points(network=SMALL, dimensions=3).build(points(), 1), "takes points of 3 numbers"),
        (lambda: Points(network=SMALL).build(points().take([]), 1), "no examples"),
        (lambda: Pixels(network=SMALL, size=16).build(pictures(), 1), "8x8x1.* 16x16xC"),
        (lambda: Pixels(classes=2, network=SMALL).build(pictures(), 1), "a label is 2.* classes 0 to 1"),
        (lambda: Pixels(network=UNET).build(pictures(n=2, size=9), 1), "multiple of 2"),
        (lambda: Points(network=UNET).build(points(), 1), "square images"),
        (lambda: _sampled(Points(network=SMALL), points(), guidance=2.0), "unconditional model has no condition"),
        (lambda: _sampled(Points(classes=3, network=SMALL, label_dropout=0.0), points(), guidance=2.0), "dropout 0"),
        (lambda: _sampled(Points(network=SMALL), points(), guidance=2.0, guide="bad"), "no model 'bad'"),
        (lambda: _sampled(Points(classes=3, network=SMALL), points(), label=7), "a label is 7"),
        (lambda: _sampled(Points(network=SMALL, formulation="epsilon"), points(), steps=2000), "between 1 and 9"),
        (lambda: components.make("model", {"name": "points", "network": "mpl"}), "Did you mean 'mlp'"),
        (lambda: components.make("model", {"name": "pixels", "classes": -1}), "classes >= 0"),
        (lambda: components.make("network", {"name": "unet", "channels": [30]}), "multiple of groups"),
        (lambda: components.make("network", {"name": "mlp", "width": 0}), "at least 1"),
        (lambda: components.checked(Points.Sampling, {"steps": 0}, "s", "sampling"), "at least 1"),
        (lambda: components.checked(Points.Sampling, {"guide": "bad"}, "s", "sampling"), "does nothing"),
    ],
)
def test_bad_input_is_named(act, says):
    with pytest.raises(UserError, match=says):
        act()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.json").unlink(), "no such file"),
        (lambda f: (f / "model.json").write_text("{"), "damaged"),
        (lambda f: (f / "model.json").write_text("[]"), "damaged"),
        (lambda f: (f / "mlp" / "diffusion_pytorch_model.safetensors").unlink(), "no such file"),
        (lambda f: (f / "mlp" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 30), "damaged"),
        (lambda f: (f / "mlp" / "config.json").unlink(), "no such file"),
    ],
)
def test_a_damaged_folder_is_named(damage, says, tmp_path):
    built(Points(network=SMALL), points()).save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=says) as caught:
        Points(network=SMALL).load(tmp_path)
    assert str(tmp_path) in caught.value.where


def test_loading_uses_saved_settings_and_refuses_other_ones(tmp_path):
    built(Points(classes=3, network=SMALL, formulation="edm"), points()).save(tmp_path)
    loaded = Points()
    loaded.load(tmp_path)
    assert loaded.classes == 3 and loaded.dimensions == 2 and loaded.form.sigma_data == 1.0
    for other in (Points(network={"name": "mlp", "width": 99}), Points(classes=4), Points(formulation="epsilon")):
        with pytest.raises(UserError, match="in the saved model, but"):
            other.load(tmp_path)
    with pytest.raises(UserError, match="'points' is saved here"):
        Pixels().load(tmp_path)


# They learn.


def trained(model, examples, steps, size, rate):
    """Plain AdamW with cosine decay; the trainer has its own tests."""
    model.build(examples, key=1)
    whole = model.encode(examples)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=rate, weight_decay=0, fused=True)
    rows = seeds.generator(5)
    for step in range(steps):
        batch = whole.take(torch.from_numpy(rows.integers(0, len(examples), size)))
        out = model.forward(batch, model.draw(batch, seeds.key("learn", step), 0))
        optimizer.zero_grad()
        (-out.log_probs.sum() / (size * out.dims)).backward()
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
    return model


@pytest.mark.long
@pytest.mark.slow
def test_points_learn_eight_gaussians_and_their_classes():
    """At least 95% of 1,000 samples within 3 standard deviations of a mode (true: 98.9%), every mode found."""
    from upturn.data.sources.points import Points as Source

    train = Source().load().train
    model = trained(Points(classes=8), train, steps=500, size=256, rate=1e-2)
    angle = np.arange(8) * math.pi / 4
    modes = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    prompts = [Prompt(label=i % 8) for i in range(1000)]
    made = model.sample(prompts, contract.sampling_keys(prompts, 1), model.Sampling()).content
    distance = np.linalg.norm(made[:, None] - modes, axis=2)
    assert (distance.min(axis=1) < 0.3).mean() >= 0.95
    assert (distance.argmin(axis=1) == np.arange(1000) % 8).mean() >= 0.98
